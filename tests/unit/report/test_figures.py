from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from ct_attn.labels import PAPER_SCHEME
from ct_attn.report import figures
from ct_attn.report import scene as scene_module
from ct_attn.report.figures import case_picture
from ct_attn.report.legend import PALETTE
from ct_attn.report.png import palette_png
from ct_attn.volume import Grid, Mask, Volume

PANCREAS, SPLEEN, KIDNEY = (np.array(to_rgb(colour)) * 255 for colour in PALETTE[:3])
SIZE = 20  # voxels along each side of a scene, of 3 mm each: three panels of 310 px
STORED = ("RAS", "LPS", "LPI", "ASR", "PIR", "SRA", "IAL")


def empty() -> np.ndarray:
    return np.zeros((SIZE,) * 3, dtype=np.uint8)


def block(corner: str) -> tuple[slice, ...]:
    """The eighth of a RAS scene that lies to the three sides named in ``corner``."""
    return tuple(slice(SIZE // 2, None) if letter in "RAS" else slice(SIZE // 2) for letter in corner)


def stored(ras: np.ndarray, spacing_mm: tuple[float, float, float], code: str) -> tuple[np.ndarray, Grid]:
    """``ras`` with its axes in the order and the directions of ``code``."""
    order = [next(axis for axis, pair in enumerate(("RL", "AP", "SI")) if letter in pair) for letter in code]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, letter) in enumerate(zip(order, code, strict=True)):
        affine[world, axis] = spacing_mm[world] * (1 if letter in "RAS" else -1)
        affine[world, 3] += 0 if letter in "RAS" else spacing_mm[world] * (ras.shape[world] - 1)
    array = np.ascontiguousarray(
        ras.transpose(order)[tuple(slice(None, None, 1 if letter in "RAS" else -1) for letter in code)]
    )
    return array, Grid(shape=array.shape, affine=affine)


def draw(hu, truth, predicted, *, spacing_mm=(3.0, 3.0, 3.0), code="RAS") -> bytes:
    arrays = [stored(array, spacing_mm, code) for array in (hu.astype(np.int16), truth, predicted)]
    (scan, grid), (labels, _), (guess, _) = arrays
    return case_picture(
        Volume(hu=scan, grid=grid),
        Mask(labels=labels, grid=grid),
        Mask(labels=guess, grid=grid),
        scheme=PAPER_SCHEME,
    )


def pixels(png: bytes) -> np.ndarray:
    """[rows, columns, 3], 0 to 255."""
    return imread(io.BytesIO(png))[..., :3] * 255


def panels(png: bytes) -> dict[str, np.ndarray]:
    picture = pixels(png)
    assert picture.shape == (624, 624, 3)
    return {"axial": picture[:310, :310], "coronal": picture[314:, :310], "sagittal": picture[314:, 314:]}


def coloured(picture: np.ndarray, colour: np.ndarray) -> int:
    """How many pixels are (nearly) ``colour``."""
    return int((np.abs(picture - colour).max(axis=-1) < 25).sum())


def brightest_quarter(picture: np.ndarray) -> tuple[str, str]:
    half = picture.shape[0] // 2
    quarters = {
        (down, across): picture[rows, columns].mean()
        for down, rows in (("top", slice(half)), ("bottom", slice(half, None)))
        for across, columns in (("left", slice(half)), ("right", slice(half, None)))
    }
    return max(quarters, key=quarters.__getitem__)


def scene(corner: str) -> tuple[np.ndarray, np.ndarray]:
    """Soft tissue of 240 HU in one eighth of air, and a small pancreas inside it."""
    hu, truth = np.full((SIZE,) * 3, -1000), empty()
    hu[block(corner)] = 240
    truth[tuple(slice(14, 16) if letter in "RAS" else slice(4, 6) for letter in corner)] = 1
    return hu, truth


@pytest.mark.parametrize("corner", ["RAS", "LAS", "RPS", "RAI", "LPI"])
def test_the_picture_is_in_radiological_convention(corner):
    hu, truth = scene(corner)
    shown = panels(draw(hu, truth, truth))
    side, front, height = corner
    right = "left" if side == "R" else "right"
    top = "top" if height == "S" else "bottom"
    assert brightest_quarter(shown["axial"]) == ("top" if front == "A" else "bottom", right)
    assert brightest_quarter(shown["coronal"]) == (top, right)
    assert brightest_quarter(shown["sagittal"]) == (top, "left" if front == "A" else "right")


def test_the_letters_say_how_the_picture_lies(monkeypatch):
    """Together with the test above: where the picture shows right, front and top, R, A and S stand."""
    written: dict[object, dict[str, str]] = {}

    def write(axes, text, at, **_):
        side = "left" if at[0] < 0.1 else "right" if at[0] > 0.9 else "top" if at[1] > 0.9 else "bottom"
        written.setdefault(axes, {})[side] = text

    monkeypatch.setattr(scene_module, "write", write)
    monkeypatch.setattr(figures, "draw_scale_bar", lambda *_: None)
    draw(empty(), empty(), empty())
    assert list(written.values()) == [
        {"left": "R", "right": "L", "top": "A", "bottom": "P"},
        {"left": "R", "right": "L", "top": "S", "bottom": "I"},
        {"left": "A", "right": "P", "top": "S", "bottom": "I"},
    ]


@pytest.mark.parametrize("code", STORED)
def test_however_the_axes_are_stored_the_picture_is_the_same(code):
    hu, truth = scene("RPS")
    spacing_mm = (1.5, 2.0, 3.0)
    straight = draw(hu, truth, np.roll(truth, 1), spacing_mm=spacing_mm)
    assert draw(hu, truth, np.roll(truth, 1), spacing_mm=spacing_mm, code=code) == straight


def test_one_scale_in_mm_along_all_axes():
    """20 x 20 x 40 mm: depth and height share 620 px, so a mm is 10.33 px."""
    shape = (20, 10, 10)
    hu, truth = np.zeros(shape), np.zeros(shape, dtype=np.uint8)
    assert pixels(draw(hu, truth, truth, spacing_mm=(1, 2, 4))).shape == (207 + 4 + 413, 207 + 4 + 207, 3)


def test_both_masks_are_outlined_in_the_colours_of_their_structures():
    truth, predicted = empty(), empty()
    truth[4:9, 4:9, 4:16] = 1
    predicted[11:16, 4:9, 4:16] = 2
    axial = panels(draw(empty(), truth, predicted))["axial"]
    assert coloured(axial, PANCREAS) > 100
    assert coloured(axial, SPLEEN) > 50
    assert coloured(axial, KIDNEY) == 0


def test_truth_is_solid_and_prediction_dashed():
    mask = empty()
    mask[4:16, 4:16, 4:16] = 1
    solid = coloured(panels(draw(empty(), mask, empty()))["axial"], PANCREAS)
    dashed = coloured(panels(draw(empty(), empty(), mask))["axial"], PANCREAS)
    assert 0.4 * solid < dashed < 0.9 * solid


def test_a_small_organ_is_not_passed_over_for_a_large_one():
    """The spleen's largest cut is at z = 15; the pancreas is at z = 5 only."""
    truth = empty()
    truth[2:18, 10:16, 2:12] = 2
    truth[2:18, 10:19, 15] = 2
    truth[8:12, 2:6, 5] = 1
    assert coloured(panels(draw(empty(), truth, truth))["axial"], PANCREAS) > 50


def test_the_picture_is_cropped_to_the_organs_of_both_masks_with_a_margin():
    """One voxel of 3 mm and seven more on each side: a cube of 45 mm, whatever is around it."""
    large = np.zeros((60, 60, 60), dtype=np.uint8)
    hu = np.full(large.shape, 240)
    hu[23:38, 23:38, 23:38] = -1000
    alone = large.copy()
    alone[30, 30, 30] = 1
    assert panels(draw(hu, alone, large))["axial"][5:40, 5:40].max() < 60
    wider = large.copy()
    wider[10, 30, 30] = 1  # now 35 voxels wide: 105 + 45 mm share 620 px
    assert pixels(draw(hu, alone, wider)).shape == (186 + 4 + 186, 434 + 4 + 186, 3)


def test_padding_below_air_looks_like_air():
    hu, truth = scene("RAS")
    padded = np.where(hu == -1000, -3024, hu)
    assert draw(padded, truth, truth) == draw(hu, truth, truth)


def test_masks_without_any_organ_give_a_picture_without_contours():
    shown = panels(draw(empty(), empty(), empty()))
    assert all(
        coloured(panel, colour) == 0 for panel in shown.values() for colour in (PANCREAS, SPLEEN, KIDNEY)
    )


def test_masks_on_another_grid_are_refused():
    here, there = (
        Grid(shape=(4, 4, 4), affine=np.eye(4)),
        Grid(shape=(4, 4, 4), affine=np.diag([2, 2, 2, 1.0])),
    )
    labels = np.zeros((4, 4, 4), dtype=np.uint8)
    volume = Volume(hu=labels.astype(np.int16), grid=here)
    mask, elsewhere = Mask(labels=labels, grid=here), Mask(labels=labels, grid=there)
    for truth, predicted in ((mask, elsewhere), (elsewhere, mask)):
        with pytest.raises(ValueError, match="one grid"):
            case_picture(volume, truth, predicted, scheme=PAPER_SCHEME)


def test_a_noisy_scan_stays_a_small_file():
    hu = np.random.default_rng(0).normal(60, 18, size=(100, 80, 80))
    truth = np.zeros(hu.shape, dtype=np.uint8)
    truth[20:80, 20:60, 20:60] = 1
    assert len(draw(hu, truth, truth)) < 170_000


def test_the_palette_keeps_greys_and_colours():
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    colours = np.array([PANCREAS, SPLEEN, KIDNEY]).round().astype(np.uint8)[None]
    assert np.abs(pixels(palette_png(greys, PALETTE)) - greys).max() <= 5
    assert np.abs(pixels(palette_png(colours, PALETTE)) - colours).max() < 0.5


def test_nothing_heavy_and_no_global_state_is_loaded():
    heavy = "{'torch', 'monai', 'lightning', 'matplotlib.pyplot'}"
    code = f"import sys, ct_attn.report.page, ct_attn.report.figures; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_without_a_prediction_the_truth_is_shown_alone_and_needs_no_key():
    truth = empty()
    truth[block("RAS")] = 1
    grid = Grid(shape=truth.shape, affine=np.diag([3.0, 3, 3, 1]))
    volume, mask = Volume(hu=truth.astype(np.int16), grid=grid), Mask(labels=truth, grid=grid)
    alone = case_picture(volume, mask, scheme=PAPER_SCHEME)
    both = case_picture(volume, mask, mask, scheme=PAPER_SCHEME)
    assert alone != both
    whites = [int((pixels(png) > 200).all(axis=2).sum()) for png in (alone, both)]
    assert whites[0] < whites[1]  # less is written in the legend
