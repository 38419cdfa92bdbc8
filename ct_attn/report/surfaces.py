"""Surfaces of organs drawn in space: lit from the viewer's left, seen along parallel rays, in mm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from ct_attn.metrics.mesh import Mesh

Floats = NDArray[np.float64]

#: Where the light comes from, in the picture's axes: right, up, towards the viewer.
_LIGHT = np.array([-0.45, 0.55, 0.70]) / np.linalg.norm([-0.45, 0.55, 0.70])
_AMBIENT, _DIFFUSE, _GLOSS, _SHININESS = 0.38, 0.62, 0.16, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """Looks at the patient from ``azimuth_degrees`` (0 the front, 90 the patient's left) and from above."""

    name: str
    azimuth_degrees: float
    elevation_degrees: float = 12.0

    @property
    def axes(self) -> Floats:
        """The picture's right, up and towards the viewer as rows of [3, 3], in RAS."""
        around, above = np.deg2rad([self.azimuth_degrees, self.elevation_degrees])
        level = np.array([-np.sin(around), np.cos(around), 0])
        right = np.array([-np.cos(around), -np.sin(around), 0])
        towards = np.cos(above) * level + np.sin(above) * np.array([0.0, 0.0, 1.0])
        return np.stack([right, np.cross(towards, right), towards])


FRONT = Camera(name="from the front", azimuth_degrees=0)
LEFT_BACK = Camera(name="from the left and behind", azimuth_degrees=140)


def frame_mm(
    meshes: Sequence[Mesh], camera: Camera, margin_mm: float = 11.0
) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of the picture that holds all of ``meshes``."""
    points = np.concatenate([mesh.vertices_mm for mesh in meshes] or [np.zeros((0, 3))])
    if not len(points):
        return 0.0, 100.0, 0.0, 100.0
    across, up = (points @ camera.axes[:2].T).T
    return (
        float(across.min() - margin_mm),
        float(across.max() + margin_mm),
        float(up.min() - margin_mm),
        float(up.max() + margin_mm),
    )


def draw_surfaces(axes: Axes, meshes: Mapping[str, Mesh], colours: Mapping[str, str], camera: Camera) -> None:
    """Draw ``meshes``, by organ in ``colours``, into ``axes``, whose units become mm.

    Triangles that face the viewer are painted from the farthest to the nearest, each in the
    organ's colour, lit by the normals of its corners.
    """
    corners, paints = [np.zeros((0, 3, 3))], [np.zeros((0, 3))]
    for name, mesh in meshes.items():
        turned = mesh.vertices_mm @ camera.axes.T
        normals = (mesh.normals @ camera.axes.T)[mesh.faces].mean(axis=1)
        seen = _faces_viewer(turned[mesh.faces])
        corners.append(turned[mesh.faces[seen]])
        paints.append(_lit(np.array(to_rgb(colours[name])), normals[seen]))
    triangles, paint = np.concatenate(corners), np.concatenate(paints)
    order = np.argsort(triangles[:, :, 2].mean(axis=1), kind="stable")
    axes.add_collection(
        # edges in the colour of their faces, so that no gaps shine through
        PolyCollection(
            list(triangles[order][:, :, :2]), facecolors=paint[order], edgecolors=paint[order], linewidths=0.3
        )
    )
    axes.set_aspect("equal")
    axes.set_axis_off()


def _faces_viewer(triangles: Floats) -> NDArray[np.bool_]:
    """Which of ``triangles`` [F, 3, 3], in the picture's axes, are counterclockwise there."""
    (ax, ay), (bx, by) = ((triangles[:, n, :2] - triangles[:, 0, :2]).T for n in (1, 2))
    return np.asarray(ax * by - ay * bx > 0)


def _lit(colour: Floats, normals: Floats) -> Floats:
    """``colour`` [3] of faces with ``normals`` [F, 3] in the picture's axes: [F, 3], after Phong 1975."""
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    unit = normals / np.maximum(length, 1e-12)
    towards_light = unit @ _LIGHT
    diffuse = _AMBIENT + _DIFFUSE * np.clip(towards_light, 0, None)
    mirrored = 2 * towards_light * unit[:, 2] - _LIGHT[2]
    gloss = _GLOSS * np.clip(mirrored, 0, None) ** _SHININESS
    return np.asarray(np.clip(diffuse[:, None] * colour + gloss[:, None], 0, 1))
