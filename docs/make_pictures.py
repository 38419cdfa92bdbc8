"""Draws the pictures of the documents from a finished demo: python docs/make_pictures.py demo/"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ct_attn.inference.predictor import Predictor
from ct_attn.preprocessing import canonical_axes
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid

PICTURES = Path(__file__).parent / "pictures"


def axial(array: np.ndarray, grid: Grid, position: int) -> np.ndarray:
    """The slice ``position`` (from below), the patient's right on the left, anterior up."""
    axes, flipped = canonical_axes(grid)
    turned = np.transpose(array, axes)
    turned = turned[tuple(slice(None, None, -1 if flip else 1) for flip in flipped)]
    return turned[::-1, ::-1, position].T


def draw_attention(demo: Path, case: str) -> Figure:
    """A test case's scan with its predicted contours, and the gates' coefficients there."""
    predictor = Predictor.load(demo / "run" / "model")
    volume = nifti.read_volume(demo / "cohort" / "imagesTs" / f"{case}.nii.gz")
    labels = nifti.read_mask(demo / "masks" / f"{case}.nii.gz")[0].labels
    axes, flipped = canonical_axes(volume.grid)
    heights = np.argwhere(labels == predictor.scheme.codes["pancreas"])[:, axes[2]]
    height = int(np.median(heights))
    position = volume.grid.shape[axes[2]] - 1 - height if flipped[2] else height
    maps = predictor.attention(volume)
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    panels = figure.subplots(1, len(maps) + 1)
    panels[0].imshow(axial(volume.hu, volume.grid, position), cmap="gray", vmin=-160, vmax=240)
    panels[0].contour(axial(labels, volume.grid, position), levels=[0.5], colors="#e69f00", linewidths=0.8)
    panels[0].set_title("scan, predicted organs")
    for panel, (name, alpha) in zip(panels[1:], maps.items(), strict=True):
        shown = panel.imshow(axial(alpha.hu, volume.grid, position), cmap="viridis", vmin=0, vmax=1)
        panel.set_title(f"alpha, {name}")
    figure.colorbar(shown, ax=panels)
    for panel in panels:
        panel.set_axis_off()
    return figure


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    draw_attention(Path(sys.argv[1]), "phantom_1_t003").savefig(PICTURES / "attention.png", dpi=80)
