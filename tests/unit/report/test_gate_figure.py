"""The picture of gates: which way it lies, one scale before and after, and what it says."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread

from ct_attn.labels import PAPER_SCHEME
from ct_attn.report import gate_figure
from ct_attn.report.gate_figure import ShownPlane, gate_picture


def plane(title="axial", size=(30, 20), spacing_mm=(2.0, 2.0), after=0.5, **changes) -> ShownPlane:
    maps = np.ones((2, 3, *size), dtype=np.float32)
    maps[:, 1] = 0.5
    maps[:, 2] = after
    fields = {
        "title": title,
        "image": np.full(size, 0.5, dtype=np.float32),
        "labels": np.zeros(size, dtype=np.uint8),
        "maps": maps,
        "spacing_mm": spacing_mm,
        "letters": "RLAP",
    }
    return ShownPlane(**{**fields, **changes})


@pytest.fixture
def drawn(monkeypatch):
    """What every panel was given: (values, norm, extent, title) of a picture of ``planes``."""

    def draw(*planes):
        figures = []
        canvas = gate_figure.FigureCanvasAgg
        monkeypatch.setattr(
            gate_figure, "FigureCanvasAgg", lambda figure: figures.append(figure) or canvas(figure)
        )
        png = gate_picture(planes, ["level1", "level2"], scheme=PAPER_SCHEME)
        return figures[0], png

    return draw


def test_a_row_per_gate_and_both_planes_in_one_scale_in_mm(drawn):
    figure, png = drawn(plane(), plane("sagittal", size=(20, 10), spacing_mm=(2.0, 5.0), letters="APSI"))
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 2 * (1 + 2 * 3)
    titles = [axes.get_title() for axes in panels]
    assert (
        titles.count("features before") == titles.count("coefficients") == titles.count("features after") == 4
    )
    wide, high = figure.get_size_inches()
    scales = set()
    for axes in panels:
        box, (_, right, bottom, _) = axes.get_position(), axes.images[0].get_extent()
        scales |= {round(box.width * wide / right, 6), round(box.height * high / bottom, 6)}
    assert len(scales) == 1
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "mean over channels of the absolute activation" in texts
    assert "level1" in texts
    assert imread(io.BytesIO(png)).ndim == 3


def test_features_before_and_after_share_a_scale_in_all_planes(drawn):
    bright = plane("sagittal")
    bright.maps[:, 0] *= 4
    figure, _ = drawn(plane(), bright)
    norms = {
        (axes.images[0].norm.vmin, axes.images[0].norm.vmax)
        for axes in figure.axes
        if axes.images and axes.get_title().startswith("features")
    }
    assert norms == {(0, 4)}


def test_what_a_gate_hardly_lets_through_is_shown_brighter_and_says_so(drawn):
    figure, _ = drawn(plane(after=0.001))
    after = [axes for axes in figure.axes if axes.get_title().startswith("features after")]
    assert {axes.get_title() for axes in after} == {"features after (x 1,000)"}
    assert after[0].images[0].get_array().max() == pytest.approx(1)


def test_coefficients_beyond_0_to_1_have_their_own_scale(drawn):
    raised = plane()
    raised.maps[:, 1] = -2
    raised.maps[:, 1, :5] = 3
    figure, _ = drawn(raised)
    shown = next(axes for axes in figure.axes if axes.get_title() == "coefficients").images[0]
    assert (shown.norm.vmin, shown.norm.vmax) == (-2, 3)
    usual, _ = drawn(plane())
    shown = next(axes for axes in usual.axes if axes.get_title() == "coefficients").images[0]
    assert (shown.norm.vmin, shown.norm.vmax) == (0, 1)


def test_the_right_or_the_front_is_on_the_left_and_what_is_above_on_top(drawn):
    image = np.zeros((30, 20), dtype=np.float32)
    image[20:, 15:] = 1  # to the right and front (or the front and up)
    figure, _ = drawn(plane(image=image))
    rows = figure.axes[0].images[0].get_array()
    assert rows.shape == (20, 30)
    assert rows[0, 0] == 1
    assert rows[-1].max() == rows[:, -1].max() == 0


def test_the_same_planes_give_the_same_bytes():
    first, second = (gate_picture([plane()], ["level1", "level2"], scheme=PAPER_SCHEME) for _ in range(2))
    assert first == second
