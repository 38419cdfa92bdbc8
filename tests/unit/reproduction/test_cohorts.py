from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.errors import UserError
from ct_attn.manifest import Case, Manifest, choose_fold, read_manifest, write_manifest
from ct_attn.reproduction.cohorts import describe, divide, moved, require_apart

PATH = Path("/data/manifest.json")


def manifest(patients, **fields):
    """One case per entry of ``patients``."""
    cases = tuple(
        Case(case_id=f"c{n}", patient_id=patient, image=f"i{n}.nii.gz", label=f"l{n}.nii.gz", fold=0)
        for n, patient in enumerate(patients)
    )
    return Manifest(
        **{"name": "n", "source": "s", "licence": "l", "labels": {"1": "pancreas"}, "training": cases}
        | fields
    )


@pytest.mark.parametrize(("train_test", "sizes"), [("120/30", (120, 30)), ("30/120", (30, 120))])
def test_150_patients_are_divided_as_in_the_paper(train_test, sizes):
    divided = divide(manifest([f"p{n}" for n in range(150)]), PATH, train_test)
    assert (len(divided.training), len(divided.test)) == sizes


def test_82_patients_are_divided_as_in_the_paper():
    divided = divide(manifest([f"p{n}" for n in range(82)]), PATH, "61/21")
    assert (len(divided.training), len(divided.test)) == (61, 21)
    assert [case.fold for case in divided.training].count(0) in (6, 7)


@given(st.lists(st.integers(0, 12).map(str), min_size=3), st.sampled_from(["120/30", "30/120", "61/21"]))
def test_every_case_is_on_one_side_and_no_patient_on_two(patients, train_test):
    whole = manifest(patients)
    if len(set(patients)) < 3:
        with pytest.raises(UserError, match="three patients"):
            divide(whole, PATH, train_test)
        return
    divided = divide(whole, PATH, train_test)
    assert sorted(case.case_id for case in divided.cases) == sorted(case.case_id for case in whole.cases)
    assert divided.test
    choose_fold(divided, 0, path=PATH)  # raises where a patient is on both sides
    assert Manifest.model_validate(divided.model_dump()) == divided
    assert divide(whole, PATH, train_test) == divided


@pytest.mark.parametrize("folder", ["out/data", "data/out/data", "data"])
def test_a_moved_manifest_names_the_same_files_by_relative_paths(tmp_path, folder):
    there = moved(manifest("abc"), tmp_path / "data" / "manifest.json", tmp_path / folder)
    for n, case in enumerate(there.cases):
        assert not Path(case.image).is_absolute()
        assert str(tmp_path) not in case.image + case.label
        assert (tmp_path / folder / case.image).resolve() == tmp_path / "data" / f"i{n}.nii.gz"
        assert (tmp_path / folder / case.label).resolve() == tmp_path / "data" / f"l{n}.nii.gz"


def test_a_moved_manifest_is_right_through_links_to_folders_and_keeps_the_names_of_linked_files(tmp_path):
    for name in ("store/deep", "data", "elsewhere/out"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "store" / "blob").write_text("voxels")
    (tmp_path / "store" / "deep" / "i0.nii.gz").symlink_to(tmp_path / "store" / "blob")
    (tmp_path / "data" / "images").symlink_to(tmp_path / "store" / "deep")
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere" / "out")
    own = manifest("a")
    case = own.training[0].model_copy(update={"image": "images/i0.nii.gz"})
    own = own.model_copy(update={"training": (case,)})
    there = moved(own, tmp_path / "data" / "m.json", tmp_path / "out")
    assert (tmp_path / "out" / there.cases[0].image).read_text() == "voxels"
    assert there.cases[0].image.endswith("i0.nii.gz")


def test_a_scan_on_both_sides_is_refused_by_place_and_by_digest():
    ours, theirs = manifest("abc"), manifest("xyz")
    require_apart(theirs, Path("/other/manifest.json"), ours, PATH)
    with pytest.raises(UserError, match="found 3, c0 first"):
        require_apart(theirs, PATH, ours, PATH)
    digested = ours.training[0].model_copy(update={"image_digest": "sha256:1"})
    copy = manifest("abc", training=(digested,))
    with pytest.raises(UserError, match="found 1, c0 first"):
        require_apart(copy, Path("/other/manifest.json"), copy, PATH)


def converted(manifest_path, folder, change_hu):
    """Another manifest with the first case's scan converted anew: turned round, in floats, uncompressed."""
    case = read_manifest(manifest_path).training[0]
    folder.mkdir()
    turned, no_digests = {}, {"image_digest": None, "label_digest": None}
    for kind in ("image", "label"):
        image = nibabel.load(manifest_path.parent / getattr(case, kind))
        values = np.asarray(image.dataobj).astype(np.float32 if kind == "image" else np.uint8)
        flip = np.diag([-1.0, -1.0, 1.0, 1.0])
        flip[:2, 3] = np.array(values.shape[:2]) - 1
        if kind == "image":
            values = values + change_hu
        turned[kind] = f"{kind}.nii"
        made = nibabel.Nifti1Image(np.flip(values, (0, 1)), image.affine @ flip)
        nibabel.save(made, folder / turned[kind])
    other = case.model_copy(update={"patient_id": "other", **turned, **no_digests})
    copy = read_manifest(manifest_path).model_copy(update={"training": (other,), "test": ()})
    write_manifest(copy, folder / "manifest.json")
    return folder / "manifest.json"


@pytest.mark.parametrize(("change_hu", "refused"), [(0, True), (1, False)])
def test_a_scan_converted_another_time_is_the_same_scan(tiny_manifest, tmp_path, change_hu, refused):
    source = converted(tiny_manifest, tmp_path / "other", change_hu)
    sides = (read_manifest(source), source, read_manifest(tiny_manifest), tiny_manifest)
    if refused:
        with pytest.raises(UserError, match=f"found 1, {sides[0].training[0].case_id} first"):
            require_apart(*sides)
    else:
        require_apart(*sides)


def test_drawings_are_called_drawings():
    assert "no patients" in describe(manifest("a", source="ct_attn 1: ct-attn phantom"))
    assert describe(manifest("a")) == "n (s)."
