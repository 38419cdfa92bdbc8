"""A case beside its truth: columns, captions, fills and the truth's edge."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from ct_attn.labels import PAPER_SCHEME
from ct_attn.metrics.scores import CaseScore, State
from ct_attn.report import run_figures
from ct_attn.report.legend import PALETTE
from ct_attn.report.run_figures import Segmented, slices_picture, surfaces_picture
from ct_attn.volume import Grid, Mask, Volume

GRID = Grid(shape=(40, 40, 30), affine=np.diag([3.0, 3.0, 4.0, 1.0]))
VOLUME = Volume(hu=np.full(GRID.shape, -1000, dtype=np.int16), grid=GRID)
SPLEEN = PAPER_SCHEME.codes["spleen"]


def mask(low=10, high=30) -> Mask:
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[low:high, low:high, 8:22] = SPLEEN
    return Mask(labels=labels, grid=GRID)


def run(name, made, **numbers) -> Segmented:
    score = CaseScore(case_id="x", organ="spleen", state=State.SCORED, **numbers)
    return Segmented(name=name, mask=made, scores={"spleen": score})


RUNS = [
    run("unet", mask(14, 26), dsc=0.512, s2s_mm=6.78),
    run("gates", Mask(labels=np.zeros(GRID.shape, np.uint8), grid=GRID), dsc=0.0),
]


@pytest.fixture
def drawn(monkeypatch):
    """The figure that a picture was made from."""
    sheets = []
    made = run_figures._Sheet.__init__

    def keep(self, *arguments):
        made(self, *arguments)
        sheets.append(self)

    monkeypatch.setattr(run_figures._Sheet, "__init__", keep)
    return sheets


@pytest.mark.parametrize(
    "draw", [lambda *given, **more: slices_picture(VOLUME, *given, **more), surfaces_picture]
)
def test_each_column_says_what_it_shows_and_what_it_scored(drawn, draw):
    png = draw(mask(), RUNS, scheme=PAPER_SCHEME)
    texts = [text.get_text() for text in drawn[0].figure.texts if text.get_text() != "■"]
    volume = 20 * 20 * 14 * 36 / 1000
    assert texts == [
        "truth", "pancreas 0 ml", f"spleen {volume:.0f} ml", "kidney 0 ml",
        "unet", "pancreas —", "spleen DSC 0.51, S2S 6.8 mm", "kidney —",
        "gates", "pancreas —", "spleen DSC 0.00", "kidney —",
    ]  # fmt: skip
    pixels = imread(io.BytesIO(png))
    assert pixels.shape[1] > pixels.shape[0] * 0.5


def test_organs_are_filled_where_each_mask_has_them_and_the_truths_edge_is_white(drawn):
    pixels = imread(io.BytesIO(slices_picture(VOLUME, mask(), RUNS, scheme=PAPER_SCHEME)))[..., :3]
    filled = np.abs(pixels - run_figures.FILL * np.array(to_rgb(PALETTE[1]))).max(axis=-1) < 0.1
    third = pixels.shape[1] // 3
    areas = [int(filled[:, n * third : (n + 1) * third].sum()) for n in range(3)]
    assert areas[0] > 2 * areas[1] > 0
    assert areas[2] == 0
    axial = drawn[0].figure.axes[:3]
    outlines = [{tuple(line.get_edgecolor()[0]) for line in axes.collections} for axes in axial]
    white = (1.0, 1.0, 1.0, 1.0)
    assert [white in colours for colours in outlines] == [False, True, True]


def test_all_columns_share_one_scale(drawn):
    surfaces_picture(mask(), RUNS, scheme=PAPER_SCHEME)
    for first in (0, 3):
        row = drawn[0].figure.axes[first : first + 3]
        assert len({(axes.get_xlim(), axes.get_ylim()) for axes in row}) == 1
        assert (
            len({(round(axes.get_position().width, 9), round(axes.get_position().height, 9)) for axes in row})
            == 1
        )


def test_masks_on_another_grid_are_refused():
    other = Grid(shape=GRID.shape, affine=np.diag([3.0, 3.0, 5.0, 1.0]))
    moved = run("unet", Mask(labels=mask().labels, grid=other), dsc=0.5)
    with pytest.raises(ValueError, match="not on one grid"):
        slices_picture(VOLUME, mask(), [moved], scheme=PAPER_SCHEME)


def test_a_mask_of_crumbs_is_drawn_in_larger_blocks(monkeypatch):
    monkeypatch.setattr(run_figures, "MOST_FACES", 2000)
    crumbs = (np.random.default_rng(0).random(GRID.shape) < 0.3).astype(np.uint8) * np.uint8(SPLEEN)
    meshes = run_figures._meshes(Mask(labels=crumbs, grid=GRID), PAPER_SCHEME)
    assert sum(len(mesh.faces) for mesh in meshes.values()) <= 2000
    png = surfaces_picture(Mask(labels=crumbs, grid=GRID), RUNS, scheme=PAPER_SCHEME)
    assert png.startswith(b"\x89PNG")
