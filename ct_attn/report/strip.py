"""The strip of attention maps over a training: one slice, one row per gate, one column per epoch."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

SLICE_INCHES = 1.5
DPI = 110


def attention_strip(
    image: NDArray[np.float32],
    labels: NDArray[np.uint8],
    maps: Mapping[int, Mapping[str, NDArray[np.float32]]],
) -> bytes:
    """A PNG of an axial slice with its true contours, then alpha of every gate after every epoch.

    ``image`` (0 to 1), ``labels`` and every map are [I, J] on one slice that runs to the
    patient's right and anterior, as the working grid does; ``maps`` is epoch -> name of
    the gate -> alpha. Shown with the patient's right on the left.
    """
    gates = list(next(iter(maps.values())))
    wide, high = image.shape
    columns, rows = len(maps) + 1, len(gates)
    size = (SLICE_INCHES * columns + 0.9, SLICE_INCHES * high / wide * rows + 0.35)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    _show_slice(panels[0][0], image, labels)
    shown = None
    for column, (epoch, of_gate) in enumerate(maps.items(), start=1):
        panels[0][column].set_title(f"epoch {epoch}", fontsize=8)
        for row, gate in enumerate(gates):
            axes = panels[row][column]
            shown = axes.imshow(_upright(of_gate[gate]), cmap="viridis", vmin=0, vmax=1)
            if column == 1:
                axes.text(
                    -0.03, 0.5, gate.replace("_", "\n"), fontsize=7, rotation=90, ha="right", va="center",
                    transform=axes.transAxes,
                )  # fmt: skip
    if shown is not None:
        figure.colorbar(shown, ax=panels, shrink=0.8, label="alpha").ax.tick_params(labelsize=7)
    FigureCanvasAgg(figure)
    png = BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _show_slice(axes: Axes, image: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    axes.imshow(_upright(image), cmap="gray", vmin=0, vmax=1)
    if labels.any():
        axes.contour(_upright(labels > 0).astype(float), levels=[0.5], colors="#E69F00", linewidths=0.8)
    axes.set_title("slice, true organs", fontsize=8)


def _upright(plane: NDArray[np.generic]) -> NDArray[np.generic]:
    """[I, J] running to the right and anterior as rows and columns of a picture seen from the feet."""
    return plane[::-1, ::-1].T
