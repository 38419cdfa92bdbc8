from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from ct_attn.labels import PAPER_SCHEME, LabelScheme
from ct_attn.report.figures import case_picture
from ct_attn.report.legend import PALETTE
from ct_attn.report.preview import preview_picture
from ct_attn.volume import Grid, Mask, Volume

GRID = Grid(shape=(24, 24, 24), affine=np.diag([3.0, 3.0, 3.0, 1.0]))
VOLUME = Volume(hu=np.zeros(GRID.shape, dtype=np.int16), grid=GRID)
COLOURS = {
    name: np.array(to_rgb(colour)) * 255 for name, colour in zip(PAPER_SCHEME.names, PALETTE, strict=False)
}
#: One axial plane goes through all.
PLACES = {
    "pancreas": (slice(2, 8), slice(2, 8), slice(9, 15)),
    "spleen": (slice(10, 16), slice(10, 16), slice(9, 15)),
    "kidney": (slice(17, 22), slice(17, 22), slice(9, 15)),
}


def mask_of(*organs: str) -> Mask:
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    for organ in organs:
        labels[PLACES[organ]] = PAPER_SCHEME.codes[organ]
    return Mask(labels=labels, grid=GRID)


def pixels(png: bytes) -> np.ndarray:
    return imread(io.BytesIO(png))[..., :3] * 255


def preview(mask: Mask, scheme: LabelScheme = PAPER_SCHEME) -> np.ndarray:
    return pixels(preview_picture(VOLUME, mask, scheme=scheme))


def coloured(picture: np.ndarray, organ: str) -> int:
    return int((np.abs(picture - COLOURS[organ]).max(axis=-1) < 8).sum())


@pytest.fixture(scope="module")
def legend() -> dict[str, int]:
    """Pixels of each colour in a picture without any organ."""
    empty = pixels(case_picture(VOLUME, mask_of(), scheme=PAPER_SCHEME))
    return {organ: coloured(empty, organ) for organ in PLACES}


def test_a_row_for_all_and_one_for_each_organ_that_was_found_in_its_colour(legend):
    picture = preview(mask_of("pancreas", "kidney"))
    above = pixels(case_picture(VOLUME, mask_of("pancreas", "kidney"), scheme=PAPER_SCHEME)).shape[0]
    rows = np.split(picture, [above + 8, above + 8 + (picture.shape[0] - above - 8) // 2])
    assert [[coloured(row, organ) > legend[organ] for organ in PLACES] for row in rows] == [
        [True, False, True],
        [True, False, False],
        [False, False, True],
    ]


def test_a_mask_of_one_organ_is_shown_once():
    single = LabelScheme.from_names({"spleen": 1})
    mask = Mask(labels=(mask_of("spleen").labels > 0).astype(np.uint8), grid=GRID)
    expected = pixels(case_picture(VOLUME, mask, scheme=single))
    assert preview(mask, single).shape[0] == expected.shape[0] + 8


def test_an_empty_mask_is_one_row_without_an_organ(legend):
    picture = preview(mask_of())
    assert {organ: coloured(picture, organ) for organ in PLACES} == legend


def test_the_same_mask_gives_the_same_bytes():
    mask = mask_of(*PLACES)
    assert preview_picture(VOLUME, mask, scheme=PAPER_SCHEME) == preview_picture(
        VOLUME, mask, scheme=PAPER_SCHEME
    )


def test_a_mask_on_another_grid_is_refused():
    elsewhere = Grid(shape=GRID.shape, affine=np.diag([3.0, 3.0, 4.0, 1.0]))
    with pytest.raises(ValueError, match="grid"):
        preview_picture(VOLUME, Mask(labels=mask_of().labels, grid=elsewhere), scheme=PAPER_SCHEME)
