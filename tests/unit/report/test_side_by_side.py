"""Image, truth and prediction of a case beside each other."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from ct_attn.labels import PAPER_SCHEME
from ct_attn.report import side_by_side
from ct_attn.report.figures import case_picture
from ct_attn.report.legend import PALETTE
from ct_attn.report.side_by_side import GAP_PX, HEADING_PX, PANEL_PX, largest_slice, side_by_side_picture
from ct_attn.volume import Grid, Mask, Volume
from tests.unit.report.test_figures import STORED, stored

SIDE = 24  # voxels of 2 mm
SPLEEN, KIDNEY = (np.array(to_rgb(colour)) * 255 for colour in PALETTE[1:3])


def empty():
    return np.zeros((SIDE,) * 3, dtype=np.uint8)


def draw(hu, truth, predicted, *, code="RAS", spacing_mm=(2.0, 2.0, 2.0), **options):
    arrays = [stored(array, spacing_mm, code) for array in (hu, truth, predicted)]
    (scan, grid), (labels, _), (guess, _) = arrays
    masks = (Mask(labels=array, grid=grid) for array in (labels, guess))
    return side_by_side_picture(Volume(hu=scan, grid=grid), *masks, scheme=PAPER_SCHEME, **options)


def pixels(png):
    return imread(BytesIO(png))[..., :3] * 255


def panels(png):
    """Image, truth and prediction, [rows, columns, 3]."""
    picture = pixels(png)[HEADING_PX : HEADING_PX + PANEL_PX]
    return [picture[:, place * (PANEL_PX + GAP_PX) :][:, :PANEL_PX] for place in range(3)]


def scene():
    """A spleen at the patient's left back, largest at slice 15, and a kidney where it should not be."""
    hu = np.full((SIDE,) * 3, 40, dtype=np.int16)
    truth, predicted = empty(), empty()
    truth[2:10, 2:10, 12:18] = PAPER_SCHEME.codes["spleen"]
    truth[2:12, 2:12, 15] = PAPER_SCHEME.codes["spleen"]
    predicted[14:22, 14:22, 10:20] = PAPER_SCHEME.codes["kidney"]
    return hu, truth, predicted


def where(panel, colour):
    """The middle (row, column) of what is tinted by ``colour`` over grey, as shares of the panel."""
    shade = panel - panel.mean(axis=-1, keepdims=True)
    tint = colour - colour.mean()
    alike = (shade @ tint) / (np.linalg.norm(tint) * np.maximum(np.linalg.norm(shade, axis=-1), 1))
    inside = np.argwhere((alike > 0.9) & (np.abs(shade).max(axis=-1) > 20))
    return inside.mean(axis=0) / PANEL_PX if len(inside) else None


@pytest.mark.parametrize("code", STORED)
def test_however_axes_are_stored_each_panel_shows_its_mask_with_the_right_on_the_left(code):
    image, truth, prediction = panels(draw(*scene(), code=code))
    assert where(image, SPLEEN) is where(image, KIDNEY) is None
    # 2:12 of 24 towards left and posterior: the middle at 7 of 24 from the left side and the back
    assert where(truth, SPLEEN) == pytest.approx([1 - 7 / 24, 1 - 7 / 24], abs=0.02)
    assert where(truth, KIDNEY) is None
    assert where(prediction, KIDNEY) == pytest.approx([1 - 18 / 24, 1 - 18 / 24], abs=0.02)
    assert where(prediction, SPLEEN) is None
    above_the_legend = slice(None, -side_by_side.LEGEND_PX)  # which says the slice's index as stored
    drawn, usual = pixels(draw(*scene(), code=code)), pixels(draw(*scene()))
    assert np.array_equal(drawn[above_the_legend], usual[above_the_legend])


def test_a_grey_is_what_it_is_in_a_report():
    hu, truth, predicted = scene()
    for level in (-120, 0, 200):
        grid = Grid(shape=hu.shape, affine=np.diag([2.0, 2, 2, 1]))
        scan = Volume(hu=np.full_like(hu, level), grid=grid)
        report = pixels(case_picture(scan, Mask(labels=truth, grid=grid), scheme=PAPER_SCHEME))
        ours = panels(draw(scan.hu, truth, predicted))[0]
        assert np.array_equal(ours[30, 30], report[30, 30])


def test_the_slice_is_where_the_truth_is_largest_or_the_prediction_or_the_middle():
    _, truth, predicted = scene()
    grid = Grid(shape=truth.shape, affine=np.eye(4))
    full, guess, none = (Mask(labels=labels, grid=grid) for labels in (truth, predicted, empty()))
    assert largest_slice(full, guess) == 15
    assert largest_slice(none, guess) == 10
    assert largest_slice(none, none) == 12


def test_panels_have_the_scans_proportions():
    hu, truth, predicted = (array[:, :12] for array in scene())
    picture = pixels(draw(hu, truth, predicted))
    assert picture.shape[:2] == (HEADING_PX + PANEL_PX // 2 + side_by_side.LEGEND_PX, 3 * PANEL_PX + 12)
    stretched = pixels(draw(hu, truth, predicted, spacing_mm=(2.0, 4.0, 2.0)))
    assert stretched.shape[0] == HEADING_PX + PANEL_PX + side_by_side.LEGEND_PX


def test_the_legend_says_what_the_truth_does_not_label():
    plain, said = draw(*scene()), draw(*scene(), not_labelled=["kidney"])
    assert plain != said
    assert np.array_equal(pixels(plain)[: -side_by_side.LEGEND_PX], pixels(said)[: -side_by_side.LEGEND_PX])


def test_masks_on_another_grid_are_refused():
    hu, truth, predicted = scene()
    grid, other = (Grid(shape=hu.shape, affine=np.diag([step, 2, 2, 1])) for step in (2.0, 3.0))
    with pytest.raises(ValueError, match="not on one grid"):
        side_by_side_picture(
            Volume(hu=hu, grid=grid), Mask(labels=truth, grid=grid), Mask(labels=predicted, grid=other),
            scheme=PAPER_SCHEME,
        )  # fmt: skip
