"""What ``benchmarks/study.py`` trains, and which questions it asks of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ORGANS = ("pancreas", "spleen", "kidney")
PHANTOM, VARIANTS = ROOT / "pipelines" / "phantom", ROOT / "pipelines" / "variants"

#: 54 cases in nine folds. Of the first fold's six one is validated, which a training can't be told not to;
#: the other 48 are for training. 16 test cases: Wilcoxon's smallest p is then 3e-5, small enough to correct.
SEED, N_VALIDATION, N_CASES, N_TEST = 7, 6, 48, 16
SCANNER = ("--pixel-mm", "0.8", "1.0", "--slice-mm", "2.5", "5.0")
COHORT = (
    "--cases", str(N_CASES + N_VALIDATION), "--folds", str((N_CASES + N_VALIDATION) // N_VALIDATION),
    "--test", str(N_TEST), "--seed", str(SEED), *SCANNER,
)  # fmt: skip
USUAL_CASES = 24

#: What every recipe is cut down to. All keep the weights of the last step: nobody's time goes into choosing.
#: As few epochs as a first stage allows: each ends in pictures and a state.
EPOCHS = 3
_EVERYWHERE = (
    f"training.epochs={EPOCHS}", f"training.validate_every={EPOCHS}",
    "training.optimizer.schedule=cosine",
    "training.augmentation.shift_fraction=0.05", "training.augmentation.zoom=[0.85,1.15]",
    "training.augmentation.gamma=0", "training.augmentation.resolution_probability=0",
)  # fmt: skip
VOLUMES = (*_EVERYWHERE, "training.optimizer.learning_rate=3.0e-3")
SLICES = (*_EVERYWHERE, "training.optimizer.learning_rate=1.0e-3")
#: Small enough for two cores without bf16; with ``--full-size`` a recipe's own.
SMALL_PATCHES = ("training.patch_size=[48,48,32]", "training.batch_size=2")
SMALL_VOLUMES = ("preprocessing.spacing_mm=[6,6,6]", *SMALL_PATCHES)
SMALL_SLICES = (
    "preprocessing.spacing_mm=[4.5,4.5,null]", "training.patch_size=[64,64,1]", "training.batch_size=8",
)  # fmt: skip
#: Gates that let nearly all through at first, as in those they are compared with.
OPEN = "network.gate_init=pass_through"


def key_of(label: str) -> str:
    """As a name of files."""
    return re.sub("[^a-z0-9]+", "_", label.lower()).strip("_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A network as one of the recipes has it, cut down to the study's size."""

    label: str
    recipe: Path
    changes: tuple[str, ...] = VOLUMES
    small: tuple[str, ...] = SMALL_VOLUMES

    @property
    def key(self) -> str:
        return key_of(self.label)

    def all_changes(self, *, full_size: bool) -> tuple[str, ...]:
        return self.changes if full_size else (*self.changes, *self.small)


def slices(label: str, recipe: str, *changes: str) -> Form:
    """A form of ``pipelines/variants`` that sees slices."""
    return Form(label=label, recipe=VARIANTS / recipe, changes=(*SLICES, *changes), small=SMALL_SLICES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One training: of what, with which seed, on how many cases, and from whose weights."""

    form: Form
    seed: int = 1
    cases: int = USUAL_CASES
    start: str | None = None  # name of another training

    @property
    def name(self) -> str:
        cases = "" if self.cases == USUAL_CASES else f"-{self.cases}_cases"
        start = "" if self.start is None else "-from_weights"
        return f"{self.form.key}{cases}{start}-seed{self.seed}"


UNET = Form(label="U-Net, 5.9 M", recipe=PHANTOM / "unet.yaml")
ATTENTION = Form(label="Attention U-Net", recipe=PHANTOM / "attention_unet_pass_through.yaml")
MULTI = Form(label="Attention U-Net, two gates", recipe=PHANTOM / "attention_unet_multi_pass_through.yaml")
SLICES_2_5D = slices("2.5D Attention U-Net", "attention_unet_2_5d.yaml", OPEN)

WIDER = Form(label="U-Net, 6.4 M", recipe=PHANTOM / "unet_6m44.yaml")
WIDEST = Form(label="U-Net, 10.4 M", recipe=PHANTOM / "unet_10m4.yaml")
AS_RELEASED = Form(label="Attention U-Net, gates as released", recipe=PHANTOM / "attention_unet.yaml")
MONAI = Form(label="MONAI AttentionUnet", recipe=PHANTOM / "monai_attention_unet.yaml")

#: Trained with two seeds. What has gates opens them at first, unless the label says otherwise.
CONTROLLED = (UNET, WIDER, WIDEST, ATTENTION, MULTI, AS_RELEASED, MONAI, SLICES_2_5D)
#: Trained with one.
OTHERS = (
    Form(
        label="two gates, shared signal",
        recipe=PHANTOM / "attention_unet_multi_shared.yaml",
        changes=(*VOLUMES, OPEN),
    ),
    Form(label="softmax gates, as released", recipe=PHANTOM / "attention_unet_softmax.yaml"),
    Form(
        label="top skip gated too",
        recipe=ATTENTION.recipe,
        changes=(*VOLUMES, "network.gated_skips=[0,1,2,3]"),
    ),
    Form(label="slides 3D, as published", recipe=VARIANTS / "slides_3d.yaml"),
    Form(label="3D re-implementation, as published", recipe=VARIANTS / "reimplementation_3d.yaml"),
    slices("2D additive, as published", "additive_2d.yaml"),
    slices("2D report, as published", "report_2d.yaml"),
    slices("2D article, as published", "article_2d.yaml"),
    slices("2.5D U-Net", "unet_2_5d.yaml"),
    slices("2.5D ResNet-18", "resnet18_2_5d.yaml"),
    slices("2D guided attention, as published", "guided_attention_2d.yaml"),
)
FIRST_SEED = tuple(Training(form=form) for form in (*CONTROLLED, *OTHERS))
SECOND_SEED = tuple(
    Training(form=form, seed=2)
    for form in (UNET, MULTI, ATTENTION, MONAI, SLICES_2_5D, WIDER, AS_RELEASED, WIDEST)
)
NETWORKS = FIRST_SEED + SECOND_SEED

#: How a result depends on the number of cases; the usual number is among the networks.
NUMBERS = (6, 12, USUAL_CASES, 48)
BY_NUMBER = tuple(
    Training(form=form, cases=cases) for form in (UNET, MULTI) for cases in NUMBERS if cases != USUAL_CASES
)

#: Finer input at equal time, beside the usual 6 mm; a patch stays as many voxels.
SPACINGS_MM = (3.0, 2.0, 1.5, 1.0)
BY_SPACING = tuple(
    Training(
        form=Form(
            label=f"{MULTI.label}, {spacing:g} mm",
            recipe=MULTI.recipe,
            # Few windows: the one validation of a training costs time and decides nothing.
            changes=(
                *VOLUMES,
                "inference.overlap=0.25",
                f"preprocessing.spacing_mm=[{spacing:g},{spacing:g},{spacing:g}]",
            ),
            small=SMALL_PATCHES,
        )
    )
    for spacing in SPACINGS_MM
)

#: Ways to begin; from scratch is among the networks.
HIGHWAY = Form(
    label="highway connections", recipe=PHANTOM / "attention_unet_highway.yaml", changes=(*VOLUMES, OPEN)
)
STARTS = (
    Training(form=ATTENTION, start=Training(form=UNET).name),
    Training(
        form=Form(
            label="U-Net's weights, gates first, then all",
            recipe=PHANTOM / "attention_unet_gates_first.yaml",
            changes=(*VOLUMES, "training.first_stage.epochs=1"),
        ),
        start=Training(form=UNET).name,
    ),
    Training(form=HIGHWAY),
)

#: What answers a question comes before what says how sure the answer is.
QUEUE = FIRST_SEED + BY_NUMBER + STARTS + BY_SPACING + SECOND_SEED

#: Label of the condition -> what becomes of the test scans; networks are not trained again.
CONDITIONS = {
    "noise x2": "noise=2",
    "noise x3": "noise=3",
    "noise x4": "noise=4",
    "blur 1 mm": "blur_mm=1",
    "blur 2 mm": "blur_mm=2",
    "metal, 40 HU": "streaks=40",
    "slices x2": "slices=2",
    "slices x3": "slices=3",
    "field of view 70 %": "field_of_view=0.7",
}
#: Whose masks are asked for on worse scans.
ASKED = (Training(form=UNET), Training(form=MULTI), Training(form=SLICES_2_5D))
