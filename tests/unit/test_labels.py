from __future__ import annotations

import numpy as np
import pytest

from ct_attn.labels import (
    DISK_SCHEME,
    KIDNEYS,
    ORGANS,
    PAPER_SCHEME,
    LabelScheme,
    Structure,
    comparable_structures,
    known_classes,
    mirrored_codes,
    recode,
)


def codes(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint8)


def organs_of(scheme: LabelScheme) -> dict[str, tuple[str, ...]]:
    return {structure.name: structure.organs for structure in scheme.structures}


def test_the_two_schemes_of_the_house():
    assert DISK_SCHEME.codes == {"pancreas": 1, "spleen": 2, "left_kidney": 3, "right_kidney": 4}
    assert PAPER_SCHEME.codes == {"pancreas": 1, "spleen": 2, "kidney": 3}
    assert organs_of(PAPER_SCHEME)["kidney"] == KIDNEYS == ("left_kidney", "right_kidney")
    assert DISK_SCHEME.names == ORGANS


def test_structures_are_kept_by_rising_code():
    scheme = LabelScheme.from_names({"spleen": 9, "pancreas": 2})
    assert scheme.names == ("pancreas", "spleen")
    assert scheme == LabelScheme.from_names({"pancreas": 2, "spleen": 9})


def test_both_sides_become_one_kidney():
    assert recode(codes(0, 1, 2, 3, 4), DISK_SCHEME, PAPER_SCHEME).tolist() == [0, 1, 2, 3, 3]


def test_recode_keeps_shape_and_type():
    labels = np.full((2, 3, 4), 4, dtype=np.uint8)
    recoded = recode(labels, DISK_SCHEME, PAPER_SCHEME)
    assert recoded.shape == (2, 3, 4)
    assert recoded.dtype == np.uint8
    assert (recoded == 3).all()
    assert (labels == 4).all()


def test_what_the_target_does_not_have_becomes_background():
    spleen = LabelScheme.from_names({"spleen": 7})
    assert recode(codes(0, 1, 2, 3, 4), DISK_SCHEME, spleen).tolist() == [0, 0, 7, 0, 0]


def test_codes_without_a_meaning_become_background():
    assert recode(codes(5, 200), DISK_SCHEME, PAPER_SCHEME).tolist() == [0, 0]


def test_one_kidney_cannot_be_told_apart_into_sides():
    with pytest.raises(ValueError, match="kidney cannot be told apart into left_kidney"):
        recode(codes(0, 3), PAPER_SCHEME, DISK_SCHEME)


def test_recoding_into_itself_changes_nothing():
    for scheme in (DISK_SCHEME, PAPER_SCHEME):
        labels = codes(0, *scheme.codes.values())
        assert recode(labels, scheme, scheme).tolist() == labels.tolist()


def test_unknown_codes():
    assert DISK_SCHEME.unknown_codes(codes(0, 1, 4)) == []
    assert DISK_SCHEME.unknown_codes(np.array([[[255, 1], [7, 7]]], dtype=np.uint8)) == [7, 255]


@pytest.mark.parametrize(("truth", "predicted"), [(DISK_SCHEME, PAPER_SCHEME), (PAPER_SCHEME, DISK_SCHEME)])
def test_sided_and_unsided_are_compared_as_kidney(truth, predicted):
    shared = comparable_structures(truth, predicted)
    assert organs_of(shared) == organs_of(PAPER_SCHEME)
    for scheme in (truth, predicted):
        recode(codes(0, *scheme.codes.values()), scheme, shared)


def test_one_structure_under_two_names_is_compared_once():
    truth = LabelScheme.from_targets({"renal": KIDNEYS})
    assert comparable_structures(truth, PAPER_SCHEME).names == ("kidney",)


def test_sides_are_compared_when_both_have_them():
    assert organs_of(comparable_structures(DISK_SCHEME, DISK_SCHEME)) == organs_of(DISK_SCHEME)


def test_half_a_kidney_is_not_compared_with_a_whole_one():
    """Pancreas-CT with the multi-organ labels has the left kidney only."""
    left_only = LabelScheme.from_names({"pancreas": 1, "left_kidney": 3})
    assert comparable_structures(left_only, PAPER_SCHEME).names == ("pancreas",)
    assert comparable_structures(PAPER_SCHEME, left_only).names == ("pancreas",)
    assert comparable_structures(left_only, DISK_SCHEME).names == ("pancreas", "left_kidney")


def test_nothing_in_common():
    spleen, pancreas = LabelScheme.from_names({"spleen": 1}), LabelScheme.from_names({"pancreas": 1})
    assert comparable_structures(spleen, pancreas).structures == ()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"code": 0}, "1 to 255"),
        ({"code": 256}, "1 to 255"),
        ({"organs": ()}, "at least one organ"),
        ({"organs": ("spleen", "spleen")}, "each once"),
        ({"organs": ("liver",)}, "unknown organ liver"),
    ],
)
def test_what_is_no_structure_is_refused(fields, complaint):
    with pytest.raises(ValueError, match=complaint):
        Structure(**({"code": 1, "name": "thing", "organs": ("spleen",)} | fields))


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        (Structure(code=1, name="other", organs=("pancreas",)), "every code once"),
        (Structure(code=2, name="spleen", organs=("pancreas",)), "every name once"),
        (Structure(code=2, name="other", organs=("spleen",)), "every organ once"),
    ],
)
def test_a_scheme_names_everything_once(second, complaint):
    with pytest.raises(ValueError, match=complaint):
        LabelScheme(structures=(Structure(code=1, name="spleen", organs=("spleen",)), second))


def test_a_structure_is_known_when_all_its_organs_are_labelled():
    left_only = ("pancreas", "left_kidney")
    assert known_classes(PAPER_SCHEME, left_only) == [True, True, False, False]
    assert known_classes(DISK_SCHEME, left_only) == [True, True, False, True, False]


def test_in_the_mirror_image_kidneys_change_their_codes_and_the_rest_stays():
    assert mirrored_codes(DISK_SCHEME) == (0, 1, 2, 4, 3, *range(5, 256))
    assert mirrored_codes(PAPER_SCHEME) == tuple(range(256))


@pytest.mark.parametrize(
    "targets",
    [
        {"left": ("left_kidney",)},
        {"left": ("left_kidney", "spleen"), "right": ("right_kidney",)},
    ],
)
def test_a_structure_whose_mirror_image_has_no_code_is_refused(targets):
    with pytest.raises(ValueError, match="mirror image of left"):
        mirrored_codes(LabelScheme.from_targets(targets))
