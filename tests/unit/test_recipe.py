from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

import ct_attn
from ct_attn.errors import UserError
from ct_attn.network.attention_unet import AttentionUNet, AttentionUNetConfig
from ct_attn.network.build import build_network
from ct_attn.network.configs import SlicesConfig
from ct_attn.network.monai_attention_unet import MonaiAttentionUNet
from ct_attn.network.unet import UNet, UNetConfig
from ct_attn.recipe import Recipe, parse_recipe, read_recipe, write_recipe
from ct_attn.training_config import AugmentationConfig, FirstStage

PHANTOM = Path(__file__).resolve().parents[2] / "pipelines" / "phantom"
DEMO = Path(ct_attn.__file__).parent / "demo_recipe.yaml"
TEXT = """\
name: small
network:
  kind: unet
  widths: [4, 8, 16]
training:
  patch_size: [32, 32, 16]
  epochs: 20
  validate_every: 5
"""


def parse(text=TEXT, *overrides) -> Recipe:
    return parse_recipe(text, overrides, source="small.yaml")


def test_a_name_is_enough_and_the_rest_is_the_papers():
    recipe = parse("name: plain")
    assert recipe == Recipe(name="plain")
    assert recipe.network == AttentionUNetConfig(widths=(16, 32, 64, 128, 256))
    assert recipe.label_scheme.codes == {"pancreas": 1, "spleen": 2, "kidney": 3}
    assert recipe.n_classes == 4
    assert recipe.preprocessing.spacing_mm == (2, 2, 2)
    assert recipe.training.optimizer.learning_rate == 1e-4
    assert recipe.training.patch_size == (96, 96, 64)
    assert recipe.inference.overlap == 0.5


def test_sections_are_read():
    recipe = parse()
    assert recipe.name == "small"
    assert recipe.network == UNetConfig(widths=(4, 8, 16))
    assert recipe.training.patch_size == (32, 32, 16)
    assert recipe.training.batch_size == 2


@pytest.mark.parametrize(
    ("line", "replacement", "where", "what"),
    [
        ("  epochs: 20", "  epoch: 20", "small.yaml:7", "training.epoch: Extra inputs"),
        ("name: small", "nome: small", "small.yaml", "name: Field required"),
        ("network:", "networks:", "small.yaml:2", "networks: Extra inputs"),
        (
            "  epochs: 20",
            "  epochs: many",
            "small.yaml:7",
            "training.epochs: Input should be a valid integer",
        ),
        ("  epochs: 20", "  epochs: 0", "small.yaml:7", "training.epochs: Input should be greater"),
        (
            "  epochs: 20",
            "  epochs: 21",
            "small.yaml:7",
            "training.epochs: 21 must be a multiple of validate_every",
        ),
        (
            "  epochs: 20",
            "  optimizer: {learning_rate: .nan}",
            "small.yaml:7",
            "training.optimizer.learning_rate",
        ),
        ("  epochs: 20", "  precision: fp8", "small.yaml:7", "training.precision"),
        ("  epochs: 20", "  augmentation: {noise: -1}", "small.yaml:7", "training.augmentation.noise"),
        ("  widths: [4, 8, 16]", "  widths: [4, 8, 0]", "small.yaml:4", "network.unet.widths.2"),
        ("  widths: [4, 8, 16]", "  depth: 3", "small.yaml:4", "network.unet.depth: Extra inputs"),
        ("  kind: unet", "  kind: vnet", "small.yaml:2", "network"),
        ("  patch_size: [32, 32, 16]", "  patch_size: [32, 30, 16]", "small.yaml:6", "multiple of 4"),
        ("  kind: unet", "  kind: unet\n  dims: 2", "small.yaml:4", "add a section slices, or take dims 3"),
        ("name: small", "name: small\nslices: {neighbours: 3}", "small.yaml:2", "a network with dims: 2"),
        (
            "network:",
            "preprocessing:\n  hu_window: [0, 1]\n  spacing_mm: [2, 2, null]\nnetwork:",
            "small.yaml:4",
            "preprocessing.spacing_mm: expected a number, along S",
        ),
        (
            "  kind: unet",
            "  kind: unet\n  pool_size: [2, 2, 3]",
            "small.yaml:7",
            "multiple of (4, 4, 9), got (32,",
        ),
        (
            "  kind: unet",
            "  kind: unet\n  kernel_size: 2",
            "small.yaml:4",
            "kernel_size: every side must be odd",
        ),
        ("  kind: unet", "  kind: unet\n  gates_per_skip: 2", "small.yaml:4", "gates_per_skip: Extra inputs"),
        ("  kind: unet", "  kind: monai_attention_unet\n  norm: batch", "small.yaml:4", "norm: Extra inputs"),
        ("  patch_size: [32, 32, 16]", "  patch_size: [32, 32]", "small.yaml:6", "training.patch_size"),
        ("name: small", "name: small\ntargets: {}", "small.yaml:2", "targets: name at least one"),
        ("name: small", "name: small\ntargets: {liver: [liver]}", "small.yaml:2", "unknown organ liver"),
        (
            "name: small",
            "name: small\ntargets: {a: [spleen], b: [spleen]}",
            "small.yaml:2",
            "every organ once",
        ),
        (
            "  validate_every: 5",
            "  validate_every: 5\n  augmentation:\n    noise: 0\n    zoom:\n      - 1\n      - wide",
            "small.yaml:13",
            "training.augmentation.zoom.1: Input should be a valid number",
        ),
        (
            "  validate_every: 5",
            "  validate_every: 5\n  augmentation:\n    noise: 0\n    flip_axes: [A, A]",
            "small.yaml:11",
            "training.augmentation.flip_axes: name each axis once",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_line(line, replacement, where, what):
    assert TEXT.count(line) == 1
    with pytest.raises(UserError) as refused:
        parse(TEXT.replace(line, replacement))
    assert refused.value.subject == where
    assert what in refused.value.found
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "replacement", "where", "what"),
    [
        (
            "  epochs: 20",
            "  epochs: true",
            "small.yaml:7",
            "training.epochs: Input should be a valid integer",
        ),
        (
            "  epochs: 20",
            '  epochs: "20"',
            "small.yaml:7",
            "training.epochs: Input should be a valid integer",
        ),
        (
            "  epochs: 20",
            "  epochs: 20.0",
            "small.yaml:7",
            "training.epochs: Input should be a valid integer",
        ),
        ("  epochs: 20", "  epochs: 2e1", "small.yaml:7", "training.epochs: Input should be a valid integer"),
        ("  epochs: 20", "  sync_batch_norm: 1", "small.yaml:7", "Input should be a valid boolean"),
        ("  epochs: 20", "  sync_batch_norm: y", "small.yaml:7", "Input should be a valid boolean"),
        ("  epochs: 20", '  sync_batch_norm: "off"', "small.yaml:7", "Input should be a valid boolean"),
        ("  epochs: 20", "  ema_decay: true", "small.yaml:7", "Input should be a valid number"),
        ("  epochs: 20", '  ema_decay: "9e-1"', "small.yaml:7", "Input should be a valid number"),
        ("  epochs: 20", "  freeze: resnet", "small.yaml:7", "Input should be a valid tuple"),
        ("  kind: unet", "  kind: attention_unet\n  gates_per_skip: true", "small.yaml:4", "valid integer"),
        ("  kind: unet", "  kind: unet\n  dims: 3.0", "small.yaml:4", "valid integer"),
        ("  kind: unet", "  kind: unet\n  kernel_size: true", "small.yaml:4", "valid integer"),
        ("  widths: [4, 8, 16]", "  widths: [4, 8.0, 16]", "small.yaml:4", "valid integer"),
        ("  widths: [4, 8, 16]", "  widths: 4", "small.yaml:4", "valid tuple"),
        ("name: small", "name: 7", "small.yaml:1", "name: Input should be a valid string"),
    ],
)
def test_a_value_of_another_type_is_refused_even_where_it_could_be_turned(line, replacement, where, what):
    assert TEXT.count(line) == 1
    with pytest.raises(UserError) as refused:
        parse(TEXT.replace(line, replacement))
    assert refused.value.subject == where
    assert what in refused.value.found


def test_a_value_that_contains_itself_is_refused():
    with pytest.raises(UserError, match="A value may not contain itself"):
        parse(TEXT.replace("[4, 8, 16]", "&widths [4, 8, *widths]"))


def test_a_key_that_is_there_twice_is_refused_with_the_line_of_the_second():
    with pytest.raises(UserError) as refused:
        parse(TEXT + "  epochs: 40\n")
    assert refused.value.subject == "small.yaml:9"
    assert "the key epochs twice" in refused.value.found


@pytest.mark.parametrize("written", ["1e-3", "1E-3", "0.001", "1.e-3", "+1.0e-3"])
def test_small_numbers_may_be_written_either_way(written):
    assert parse(TEXT, f"training.optimizer.learning_rate={written}").training.optimizer.learning_rate == 1e-3


def test_a_whole_number_will_do_for_a_number_and_a_file_has_lists():
    recipe = parse(TEXT, "training.augmentation.noise=1", "targets={a: [spleen, pancreas]}")
    assert recipe.training.augmentation.noise == 1
    assert recipe.targets == {"a": ("spleen", "pancreas")}


def test_further_mistakes_are_counted():
    with pytest.raises(UserError, match=r"\(and 1 more\)"):
        parse(TEXT.replace("epochs", "epoch").replace("widths", "width"))


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("name: [1, 2\nother: 3\n", "small.yaml:2", "expected"),
        ("name: a\n\tb: c\n", "small.yaml:2", "cannot start any token"),
        ("name: 2026-99-99\n", "small.yaml", "month must be in 1..12"),
        ("name: \x00", "small.yaml", "#x0000"),
    ],
)
def test_broken_yaml_is_named_with_its_line(text, where, what):
    with pytest.raises(UserError) as refused:
        parse(text)
    assert refused.value.subject == where
    assert what in refused.value.found


@pytest.mark.parametrize(("text", "kind"), [("", "NoneType"), ("- a\n- b\n", "list"), ("just words", "str")])
def test_a_file_without_sections_is_refused(text, kind):
    with pytest.raises(UserError, match=f"expected a mapping of sections, found {kind}"):
        parse(text)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.yaml: expected a recipe.*No such file"):
        read_recipe(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="Is a directory"):
        read_recipe(tmp_path)
    (tmp_path / "scan.yaml").write_bytes(b"\x1f\x8b\xff\xfe")
    with pytest.raises(UserError, match="no text"):
        read_recipe(tmp_path / "scan.yaml")


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("training.epochs=10", ("training", "epochs"), 10),
        (
            "training.optimizer.learning_rate=1e-3",
            ("training", "optimizer", "learning_rate"),
            0.001,
        ),  # text to YAML
        ("training.optimizer.learning_rate=0.5", ("training", "optimizer", "learning_rate"), 0.5),
        ("training.patch_size=[8, 16, 24]", ("training", "patch_size"), (8, 16, 24)),
        ("training.augmentation.noise=0", ("training", "augmentation", "noise"), 0),
        ("loss.include_background=false", ("loss", "include_background"), False),
        ("network.widths=[2,4]", ("network", "widths"), (2, 4)),
        ("name=a=b", ("name",), "a=b"),
        (" training.seed = 7", ("training", "seed"), 7),
    ],
)
def test_an_override_replaces_one_field(override, place, value):
    before, after = parse(), parse(TEXT, override)
    for part in place:
        before, after = getattr(before, part), getattr(after, part)
    assert before != value
    assert after == value


def test_an_override_begins_a_section_that_is_null(tmp_path):
    """So they are in the recipe of a run, which has every field."""
    write_recipe(parse(), tmp_path / "recipe.yaml")
    assert "first_stage: null" in (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    recipe = read_recipe(tmp_path / "recipe.yaml", ["training.first_stage.epochs=1"])
    assert recipe.training.first_stage == FirstStage(epochs=1)
    changes = ["slices.plane=coronal", "network.dims=2", "preprocessing.spacing_mm=[2, null, 2]",
               "training.patch_size=[32, 1, 32]"]  # fmt: skip
    recipe = read_recipe(tmp_path / "recipe.yaml", changes)
    assert recipe.slices == SlicesConfig(plane="coronal")
    assert recipe.axes == (0, 2, 1)
    assert parse("name: plain\n").axes == (0, 1, 2)
    assert parse("name: plain\ntraining:\n", "training.epochs=10").training.epochs == 10


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["training.epochs=21"], "--set training.epochs=21"),
        (["training.optimizer.name=adamm", "name=trial"], "--set training.optimizer.name=adamm"),
        (["training.epochs=40", "training.epochs=many"], "--set training.epochs=many"),
        (["network.widths=[4, 8, 0]"], "--set network.widths=[4, 8, 0]"),
        (["training.seed=1", "network.widths=[4, 8, 16, 32, 64, 128]"], "small.yaml:6"),
    ],
)
def test_the_override_at_fault_is_named(overrides, where):
    with pytest.raises(UserError) as refused:
        parse(TEXT, *overrides)
    assert refused.value.subject == where


def test_overrides_apply_in_order_and_leave_the_rest():
    recipe = parse(TEXT, "training.epochs=40", "training.epochs=10", "training.batch_size=1")
    assert recipe.training.epochs == 10
    assert recipe.training.batch_size == 1
    assert recipe.training.validate_every == 5
    assert recipe.network == parse().network


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("training.epochs", "expected section.field=value"),
        ("=5", "expected section.field=value"),
        ("training.=5", "expected section.field=value"),
        ("name.first=5", "expected a section before the dot, found the field name"),
        ("training.epochs=[1", "expected a YAML value"),
        ("name=2026-99-99", "expected a YAML value"),
        ("trainning.epochs=5", "trainning: Extra inputs"),
        ("training.epoch=5", "training.epoch: Extra inputs"),
        ("training.epochs=many", "training.epochs: Input should be a valid integer"),
        ("training.epochs=", "training.epochs: Input should be a valid integer"),
        (".name=x", "Extra inputs"),
    ],
)
def test_an_override_that_fits_nothing_is_refused(override, what):
    with pytest.raises(UserError) as refused:
        parse(TEXT, override)
    assert what in str(refused.value)
    assert "--set" in str(refused.value)


@pytest.mark.parametrize(
    "overrides", [(), ("network.kind=attention_unet", "training.optimizer.learning_rate=1e-7")]
)
def test_a_written_recipe_reads_back_with_every_field_said(tmp_path, overrides):
    recipe = parse(TEXT, *overrides, "name='Länge × 3: [x]'", "training.optimizer.weight_decay=1e-6")
    path = tmp_path / "new" / "recipe.yaml"
    write_recipe(recipe, path)
    assert read_recipe(path) == recipe
    assert "smoothing_voxels" in path.read_text(encoding="utf-8")


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        parse().name = "other"


def test_the_recipes_of_this_repository_are_right():
    here = Path(__file__).resolve().parents[2]
    files = sorted(here.glob("pipelines/**/*.yaml"))
    assert files or not (here / "pipelines").is_dir()
    recipes = [read_recipe(file) for file in files]
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    for recipe in recipes:  # as models keep theirs
        assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    ("name", "kind", "parameters"),
    [
        ("unet", UNet, 5_888_004),
        ("attention_unet", AttentionUNet, 6_214_151),
        ("attention_unet_multi", AttentionUNet, 6_473_322),
        ("attention_unet_multi_shared", AttentionUNet, 6_411_498),
        ("attention_unet_softmax", AttentionUNet, 6_214_151),
        ("unet_6m44", UNet, 6_444_328),
        ("unet_10m4", UNet, 10_403_190),
        ("monai_attention_unet", MonaiAttentionUNet, 5_909_164),
    ],
)
def test_every_published_network_has_its_recipe(name, kind, parameters):
    recipe = read_recipe(Path(__file__).resolve().parents[2] / "pipelines" / "phantom" / f"{name}.yaml")
    network = build_network(recipe.network, in_channels=1, n_classes=recipe.n_classes)
    assert type(network) is kind
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_the_demos_recipe_is_right():
    recipe = read_recipe(DEMO)
    assert recipe.name == "demo"
    assert recipe.network.kind == "attention_unet"


def test_flips_that_would_confuse_sides_are_refused():
    flips = "training.augmentation.flip_axes=[R, A]"
    assert parse(TEXT, flips).training.augmentation.flip_axes == ("R", "A")
    parse(TEXT, flips, "targets={left: [left_kidney], right: [right_kidney]}")
    with pytest.raises(UserError, match="flip_axes: no R, for the mirror image of left has no code"):
        parse(TEXT, flips, "targets={left: [left_kidney], pancreas: [pancreas]}")
    parse(TEXT, "training.augmentation.flip_axes=[A]", "targets={left: [left_kidney]}")
    with pytest.raises(UserError, match="each axis once"):
        parse(TEXT, "training.augmentation.flip_axes=[A, A]")


@pytest.mark.parametrize(
    "recipe", ["demo", *sorted(path.stem for path in PHANTOM.glob("*.yaml") if path.stem != "strong")]
)
def test_published_numbers_were_made_with_these_bounds(recipe):
    file = DEMO if recipe == "demo" else PHANTOM / f"{recipe}.yaml"
    assert read_recipe(file).training.augmentation == AugmentationConfig(
        shift_fraction=0.05, zoom=(0.85, 1.15), gamma=0, resolution_probability=0
    )
