from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ct_attn.errors import UserError
from ct_attn.manifest import Case, Manifest, choose_fold
from ct_attn.reproduction.cohorts import describe, divide, require_apart

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


def test_paths_are_absolute():
    divided = divide(manifest("abc"), PATH, "120/30")
    assert {Path(case.image).parent for case in divided.cases} == {Path("/data")}


def test_a_scan_on_both_sides_is_refused_by_place_and_by_digest():
    ours, theirs = manifest("abc"), manifest("xyz")
    require_apart(theirs, Path("/other/manifest.json"), ours, PATH)
    with pytest.raises(UserError, match="found 3, c0 first"):
        require_apart(theirs, PATH, ours, PATH)
    digested = ours.training[0].model_copy(update={"image_digest": "sha256:1"})
    copy = manifest("abc", training=(digested,))
    with pytest.raises(UserError, match="found 1, c0 first"):
        require_apart(copy, Path("/other/manifest.json"), copy, PATH)


def test_drawings_are_called_drawings():
    assert "no patients" in describe(manifest("a", source="ct_attn 1: ct-attn phantom"))
    assert describe(manifest("a")) == "n (s)."
