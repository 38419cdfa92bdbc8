from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.errors import UserError
from ct_attn.fingerprint import Fingerprint
from ct_attn.manifest import read_manifest, write_manifest
from ct_attn.plan import choose_epochs, choose_patch, choose_spacing, plan, propose
from ct_attn.recipe import Recipe

THIN = Fingerprint(
    n_cases=60,
    spacing_mm=(0.8, 0.8, 1.0),
    extent_mm=(400.0, 400.0, 220.0),
    organs_mm=(250.0, 180.0, 180.0),
    hu_window=(-60.0, 210.0),
)
GIB = 2**30
CPU = torch.device("cpu")


def planned(memory_gib=12.0, fingerprint=THIN, targets=None):
    targets = targets or Recipe(name="x").targets
    return propose(fingerprint, targets, memory_bytes=memory_gib * GIB, device=CPU, name="data")


def test_thin_slices_are_taken_at_the_papers_2_mm_and_thick_ones_as_they_are():
    assert choose_spacing((0.8, 0.8, 1.0)) == (2.0, 2.0, 2.0)
    assert choose_spacing((0.8, 0.8, 5.0)) == (2.0, 2.0, 5.0)


@given(
    whole=st.tuples(*[st.integers(1, 300)] * 3),
    multiple=st.sampled_from([(16, 16, 16), (32, 32, 32), (16, 16, 1)]),
    bound=st.integers(1, 4_000_000),
)
def test_a_patch_fits_is_a_multiple_and_reaches_no_further_than_the_scan(whole, multiple, bound):
    patch = choose_patch(whole, multiple, lambda size: prod(size) <= bound)
    if patch is None:
        assert prod(multiple) > bound
        return
    assert prod(patch) <= bound
    for axis, (side, step, size) in enumerate(zip(patch, multiple, whole, strict=True)):
        assert side % step == 0
        assert side < size + step
        larger = prod(patch) // side * (side + step)
        assert larger > bound or side + step >= size + step, axis


def test_a_patch_has_the_proportions_of_the_scan():
    patch = choose_patch((320, 320, 160), (16, 16, 16), lambda size: prod(size) <= 2_500_000)
    assert patch[0] == pytest.approx(2 * patch[2], abs=16)
    assert abs(patch[0] - patch[1]) <= 16


def test_a_small_data_set_has_the_fewest_epochs_and_a_large_one_the_most():
    assert choose_epochs(5, 10**6, 10**6) == 100
    assert choose_epochs(200, 4 * 10**6, 2 * 10**6) == 1000
    assert choose_epochs(60, 2 * 10**6, 2 * 10**6) == 180


def test_more_memory_means_larger_patches_and_then_larger_batches():
    recipes = [planned(memory).recipe for memory in (2, 5, 1000)]
    sizes = [prod(recipe.training.patch_size) for recipe in recipes]
    assert sizes[0] < sizes[1] < sizes[2]
    assert [recipe.training.batch_size for recipe in recipes] == [2, 2, 8]
    assert all(a >= b for a, b in zip(recipes[2].training.patch_size, (200, 200, 110), strict=True))


def test_the_need_stays_within_the_memory_and_every_choice_has_a_reason():
    made = planned(12)
    assert made.recipe.preprocessing.hu_window == (-60.0, 210.0)
    assert made.recipe.preprocessing.spacing_mm == (2.0, 2.0, 2.0)
    need = float(made.reasons[3].split("about ")[1].split(" of")[0])
    assert 6 < need <= 12
    assert [reason.split()[0] for reason in made.reasons] == [
        "spacing",
        "HU",
        "patch",
        "batch",
        made.reasons[4].split()[0],
    ]


def test_too_little_memory_is_one_line():
    with pytest.raises(UserError, match=r"memory for a batch of two patches.*0\.1 GiB"):
        planned(0.06)


def test_a_plan_reads_the_scans_and_leaves_out_what_nothing_labels(tiny_manifest, tmp_path, silent):
    manifest = read_manifest(tiny_manifest)
    root = tiny_manifest.parent
    training = tuple(
        case.model_copy(
            update={
                "labelled_organs": ("pancreas", "left_kidney"),
                "image": str(root / case.image),
                "label": str(root / case.label),
            }
        )
        for case in manifest.training
    )
    path = tmp_path / "manifest.json"
    write_manifest(manifest.model_copy(update={"training": training}), path)
    made = plan(path, progress=silent, memory_bytes=4 * GIB)
    assert list(made.recipe.targets) == ["pancreas", "kidney"]
    assert made.recipe.preprocessing.spacing_mm == (4.0, 4.0, 5.0)
    low, high = made.recipe.preprocessing.hu_window
    assert -150 < low < 60 < high < 400


def test_no_training_case_is_one_line(tiny_manifest, tmp_path, silent):
    manifest = read_manifest(tiny_manifest).model_copy(update={"training": ()})
    write_manifest(manifest, tmp_path / "manifest.json")
    with pytest.raises(UserError, match="training cases"):
        plan(tmp_path / "manifest.json", progress=silent)
