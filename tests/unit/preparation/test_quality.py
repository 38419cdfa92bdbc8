from __future__ import annotations

import numpy as np
import pytest

from ct_attn.labels import ORGANS
from ct_attn.preparation.quality import CaseFacts, OrganFacts, marks, measure
from ct_attn.volume import Grid, Mask, Volume
from tests.downloads import LEFT_KIDNEY, PANCREAS, SPLEEN

SIZE = 20


def scene(**boxes):
    """A scan of 10 mm voxels (1 ml each), LPS, 50 HU but for padding at a corner, and labelled boxes."""
    codes = {"pancreas": PANCREAS, "spleen": SPLEEN, "left_kidney": LEFT_KIDNEY}
    hu = np.full((SIZE,) * 3, 50, dtype=np.int16)
    hu[0, 0, 0] = -2048
    labels = np.zeros(hu.shape, dtype=np.uint8)
    for name, box in boxes.items():
        labels[box] = codes[name]
    grid = Grid(shape=hu.shape, affine=np.diag([-10.0, -10.0, 10.0, 1.0]))
    return Volume(hu=hu, grid=grid), Mask(labels=labels, grid=grid)


def organ(name="pancreas", **fields):
    given = {
        "volume_ml": 80.0,
        "mean_hu": 60.0,
        "centre_mm": (0.0, 0.0, 0.0),
        "large_parts": 1,
        "borders": (),
    }
    return OrganFacts(organ=name, **(given | fields))


def facts(*organs):
    hu = {"hu_min": -1024.0, "hu_p01": -1000.0, "hu_median": 0.0, "hu_p99": 300.0, "hu_max": 900.0}
    shape = {"shape": (9, 9, 9), "spacing_mm": (1.0, 1.0, 1.0), "orientation": "LPS"}
    return CaseFacts(**shape, **hu, padding_voxels=0, organs=organs)


def test_the_numbers_of_a_known_scene():
    found = measure(*scene(pancreas=np.s_[2:6, 2:7, 2:5], spleen=np.s_[10:20, 3:5, 0:4]))
    assert (found.hu_min, found.hu_median, found.hu_max, found.padding_voxels) == (-2048, 50, 50, 1)
    assert (found.shape, found.orientation, found.spacing_mm) == ((SIZE,) * 3, "LPS", (10, 10, 10))
    pancreas, spleen = found.organs
    assert (pancreas.organ, pancreas.volume_ml, pancreas.mean_hu) == ("pancreas", 60, 50)
    assert pancreas.centre_mm == (-35, -40, 30)
    assert (pancreas.large_parts, pancreas.borders) == (1, ())
    assert (spleen.volume_ml, spleen.borders) == (80, ("L", "I"))


def test_crumbs_are_no_parts():
    volume, mask = scene(pancreas=np.s_[2:6, 2:7, 2:5])
    mask.labels[12, 12, 12] = PANCREAS
    assert measure(volume, mask).organs[0].large_parts == 1
    mask.labels[12:15, 12:15, 12] = PANCREAS
    assert measure(volume, mask).organs[0].large_parts == 2


def test_a_label_on_padding_reaches_beyond_the_field_of_view():
    (pancreas,) = measure(*scene(pancreas=np.s_[0:3, 0:3, 0:3])).organs
    assert pancreas.borders == ("R", "A", "I", "padding")


@pytest.mark.parametrize(
    ("organs", "expected"),
    [
        ([organ()], []),
        ([organ(volume_ml=29.4)], ["pancreas of 29 ml"]),
        ([organ(volume_ml=201)], ["pancreas of 201 ml"]),
        ([organ("spleen", volume_ml=900)], []),
        ([organ(large_parts=2)], ["pancreas in 2 large parts"]),
        ([organ(borders=("S",))], ["pancreas touches the border of the field of view (S)"]),
        (
            [organ("left_kidney", centre_mm=(50.0, 0, 0)), organ("right_kidney", centre_mm=(-50.0, 0, 0))],
            ["left kidney lies right of the right kidney"],
        ),
        ([organ(), organ("spleen", centre_mm=(-90.0, 0, 0))], []),
        ([organ(), organ("spleen", centre_mm=(90.0, 0, 0))], ["spleen lies right of the pancreas"]),
    ],
)
def test_what_is_marked(organs, expected):
    names = [one.organ for one in organs]
    assert marks(facts(*organs), names, names) == expected


def test_an_empty_organ_is_marked_and_one_that_nobody_labels_is_not():
    assert marks(facts(organ()), ["pancreas"], ["pancreas", "left_kidney"]) == ["left kidney is empty"]
    assert marks(facts(organ()), ["pancreas"], ["pancreas"]) == []
    assert set(ORGANS) > {"pancreas", "left_kidney"}
