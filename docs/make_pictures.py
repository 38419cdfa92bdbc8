"""Draws the pictures of the documents.

python docs/make_pictures.py attention demo/       from a finished demo
python docs/make_pictures.py report report.html    from any report of an evaluation, with Chromium
"""

from __future__ import annotations

import sys
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ct_attn.inference.predictor import Predictor
from ct_attn.preprocessing import canonical_axes
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tests' browser

from tests.browser import Page, open_browser

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


def photograph(report: Path) -> None:
    """The head of the report, its viewer, and how it looks on a phone in the dark."""
    with tempfile.TemporaryDirectory() as folder, open_browser(Path(folder) / "profile") as page:
        page.show_as(1180, 1060)
        page.open(report)
        keep(page.screenshot(), "report_summary")
        page.show_as(1180, 640)
        open_viewer(page)
        keep(page.screenshot(), "report_viewer")
        page.show_as(390, 800, dark=True)
        page.open(report)
        keep(page.screenshot(), "report_phone")


def open_viewer(page: Page) -> None:
    page.run("document.getElementById('viewer-open').click()")
    page.wait_for("document.getElementById('viewer-place').innerText.includes('HU')")
    page.run("document.getElementById('viewer').scrollIntoView()")
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def keep(png: bytes, name: str) -> None:
    """A PNG of 256 colours, which is a third of the size."""
    image = Image.open(BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    what, source = sys.argv[1], Path(sys.argv[2])
    if what == "report":
        photograph(source)
    else:
        draw_attention(source, "phantom_1_t003").savefig(PICTURES / "attention.png", dpi=80)
