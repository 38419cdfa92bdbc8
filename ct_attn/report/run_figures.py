"""One case as several runs segmented it, beside its truth: slices with fills, and surfaces in space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

from ct_attn.labels import LabelScheme
from ct_attn.metrics.mesh import Mesh, mesh_of
from ct_attn.metrics.scores import CaseScore
from ct_attn.report.legend import colour_of, display_name
from ct_attn.report.png import indexed_png
from ct_attn.report.scene import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    Plane,
    Scene,
    best_slice,
    cut,
    draw_contours,
    draw_letters,
    draw_scale_bar,
    extent_mm,
    fill,
    make_scene,
    show_slice,
)
from ct_attn.report.surfaces import FRONT, LEFT_BACK, draw_surfaces, frame_mm
from ct_attn.volume import Mask, Volume

DPI = 200
COLUMN_INCHES = 2.3
GAP, LINE, MARGIN = 0.06, 0.17, 0.08  # inches
FONT_PT = 8
FILL = 0.45
CAMERAS = (FRONT, LEFT_BACK)
STEP_MM, MOST_FACES = 2.0, 400_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segmented:
    """What a run made of the case, and what it scored there; ``name`` is ``truth`` for the truth."""

    name: str
    mask: Mask
    scores: Mapping[str, CaseScore]


def slices_picture(volume: Volume, truth: Mask, runs: Sequence[Segmented], *, scheme: LabelScheme) -> bytes:
    """A PNG: a column for the truth and for each run, an axial, a coronal and a sagittal slice each.

    Organs are filled and outlined; a thin white line in the runs' columns is the truth's edge.
    All masks are in the codes of ``scheme``. The slices are those that show most of the
    truth, the same in all columns and in one scale in mm; above a column stand DSC and S2S
    of the case. Raises ``ValueError`` when the grids differ.
    """
    scene = make_scene(volume, [truth, *(run.mask for run in runs)], scheme)
    planes = (AXIAL, CORONAL, SAGITTAL)
    columns = _captions(truth, runs, scheme)
    inches = COLUMN_INCHES / max(extent_mm(scene, plane)[0] for plane in planes)
    heights = [extent_mm(scene, plane)[1] * inches for plane in planes]
    sheet = _Sheet(columns, heights)
    for row, plane in enumerate(planes):
        index = best_slice(scene, plane)
        for column, labels in enumerate(scene.masks):
            wide = extent_mm(scene, plane)[0] * inches
            axes = sheet.panel(row, column, wide, "black")
            _show(axes, scene, plane, index, labels, is_run=column > 0)
            if column == 0:
                draw_letters(axes, plane, FONT_PT)
            if row == column == 0:
                draw_scale_bar(axes, scene, FONT_PT)
    return indexed_png(sheet.pixels(), _filled_colours(scheme))


def surfaces_picture(truth: Mask, runs: Sequence[Segmented], *, scheme: LabelScheme) -> bytes:
    """A PNG of the organs' surfaces in the same columns, from the front and from behind.

    One camera and one scale in mm for all columns. Surfaces are smoothed
    (:func:`~ct_attn.metrics.mesh.mesh_of`): for looking, not for measuring.
    """
    masks = [truth, *(run.mask for run in runs)]
    meshes = [_meshes(mask, scheme) for mask in masks]
    every = [mesh for of_mask in meshes for mesh in of_mask.values()]
    frames = [frame_mm(every, camera) for camera in CAMERAS]
    inches = COLUMN_INCHES / max(right - left for left, right, _, _ in frames)
    sheet = _Sheet(_captions(truth, runs, scheme), [(top - bottom) * inches for _, _, bottom, top in frames])
    colours = colour_of(scheme.names)
    for row, (camera, (left, right, bottom, top)) in enumerate(zip(CAMERAS, frames, strict=True)):
        for column, of_mask in enumerate(meshes):
            axes = sheet.panel(row, column, (right - left) * inches, "white")
            draw_surfaces(axes, of_mask, colours, camera)
            axes.set(xlim=(left, right), ylim=(bottom, top))
            if column == 0:
                axes.text(
                    0.02, 0.99, camera.name, fontsize=FONT_PT - 1, color="0.35", ha="left", va="top",
                    transform=axes.transAxes,
                )  # fmt: skip
            if row == column == 0:
                axes.plot([left + 4, left + 54], [bottom + 3] * 2, color="black", linewidth=1.2)
                axes.text(left + 29, bottom + 5, "5 cm", fontsize=FONT_PT - 1, ha="center", va="bottom")
    return sheet.png()


def _filled_colours(scheme: LabelScheme) -> NDArray[np.uint8]:
    """Greys, and each organ's colour pure, over greys and at the edge of white: [n <= 256, 3]."""
    colours = sorted(set(colour_of(scheme.names).values()))
    backgrounds = np.linspace(0, 255, 180 // max(1, len(colours)) - 5)[:, None]
    table = [np.linspace(0, 255, 64)[:, None].repeat(3, axis=1)]
    for colour in colours:
        pure = 255 * np.array(to_rgb(colour))
        table += [pure[None], FILL * pure + (1 - FILL) * backgrounds]
        table += [(1 - share) * pure[None] + share * 255 for share in (0.2, 0.4, 0.6, 0.8)]
    return np.concatenate(table).round().astype(np.uint8)


def _meshes(mask: Mask, scheme: LabelScheme) -> dict[str, Mesh]:
    """The surface of every organ; a mask that is all crumbs in blocks so large that it can be drawn."""
    step_mm = STEP_MM
    while True:
        meshes = {
            name: mesh_of(mask.labels == code, mask.grid, step_mm=step_mm)
            for name, code in scheme.codes.items()
        }
        if sum(len(mesh.faces) for mesh in meshes.values()) <= MOST_FACES:
            return meshes
        step_mm *= 1.5


def _show(
    axes: Axes, scene: Scene, plane: Plane, index: int, labels: NDArray[np.uint8], *, is_run: bool
) -> None:
    show_slice(axes, scene, plane, index)
    shown = cut(labels, plane, index)
    colours = colour_of(scene.scheme.names)
    for name, code in scene.scheme.codes.items():
        fill(axes, scene, plane, shown == code, colours[name], share=FILL)
    draw_contours(axes, scene, plane, shown, "solid", width=0.8)
    if is_run:
        truth = cut(scene.truth, plane, index)
        draw_contours(axes, scene, plane, truth, "solid", colour="white", width=0.5)


def _captions(
    truth: Mask, runs: Sequence[Segmented], scheme: LabelScheme
) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each column its title, and lines in the colours of their organs."""
    colours = colour_of(scheme.names)
    volumes = {
        name: np.count_nonzero(truth.labels == code) * truth.grid.voxel_volume_mm3 / 1000
        for name, code in scheme.codes.items()
    }
    lines = [(f"{display_name(name)} {volumes[name]:.0f} ml", colours[name]) for name in scheme.names]
    captions = [("truth", lines)]
    for run in runs:
        words = [(_in_words(name, run.scores.get(name)), colours[name]) for name in scheme.names]
        captions.append((run.name, words))
    return captions


def _in_words(name: str, score: CaseScore | None) -> str:
    if score is None or score.dsc is None:
        return f"{display_name(name)} —"
    distance = "" if score.s2s_mm is None else f", S2S {score.s2s_mm:.1f} mm"
    return f"{display_name(name)} DSC {score.dsc:.2f}{distance}"


class _Sheet:
    """A white sheet with a captioned column per mask and a row per view; sizes in inches."""

    def __init__(
        self, columns: Sequence[tuple[str, list[tuple[str, str]]]], heights: Sequence[float]
    ) -> None:
        head = MARGIN + LINE * (1.3 + max(len(lines) for _, lines in columns))
        self.width = 2 * MARGIN + len(columns) * COLUMN_INCHES + (len(columns) - 1) * GAP
        self.height = head + sum(heights) + len(heights) * GAP + MARGIN
        self.tops = [self.height - head - sum(heights[:row]) - row * GAP for row in range(len(heights))]
        self.heights = list(heights)
        self.figure = Figure(figsize=(self.width, self.height), dpi=DPI, facecolor="white")
        for column, (title, lines) in enumerate(columns):
            left = self._left(column)
            self._write(left, 0, title, "black", weight="bold")
            for number, (text, colour) in enumerate(lines):
                self._write(left, 1.2 + number, "■", colour)
                self._write(left + 0.13, 1.2 + number, text, "black")

    def panel(self, row: int, column: int, wide: float, colour: str) -> Axes:
        """A panel ``wide`` inches, in the middle of its column."""
        left = self._left(column) + (COLUMN_INCHES - wide) / 2
        bottom = self.tops[row] - self.heights[row]
        return self.figure.add_axes(
            (left / self.width, bottom / self.height, wide / self.width, self.heights[row] / self.height),
            facecolor=colour,
        )

    def pixels(self) -> NDArray[np.uint8]:
        """[rows, columns, 3]."""
        canvas: Any = FigureCanvasAgg(self.figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3]

    def png(self) -> bytes:
        """In steps of 4 of 256, which takes a third less room."""
        png = BytesIO()
        imsave(png, self.pixels() | np.uint8(3), format="png", metadata={"Software": ""})
        return png.getvalue()

    def _left(self, column: int) -> float:
        return MARGIN + column * (COLUMN_INCHES + GAP)

    def _write(self, left: float, line: float, text: str, colour: str, weight: str = "normal") -> None:
        self.figure.text(
            left / self.width, 1 - (MARGIN + LINE * line) / self.height, text, fontsize=FONT_PT,
            color=colour, ha="left", va="top", weight=weight,
        )  # fmt: skip
