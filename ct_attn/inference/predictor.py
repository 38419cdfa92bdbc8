"""Trained models, loaded once, that predict many scans."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ct_attn.errors import UserError
from ct_attn.inference.agreement import Agreement
from ct_attn.inference.backends.backend import Backend, OutOfMemoryError
from ct_attn.inference.backends.choose import choose_backend
from ct_attn.inference.blending import blended, in_axes
from ct_attn.inference.body import body_box, find_body
from ct_attn.inference.clock import StageClock
from ct_attn.inference.ensemble import coarser, require_alike, windows_fixed
from ct_attn.inference.gates import GateViews, attention_maps, gate_views
from ct_attn.inference.memory import MOST_WINDOW_VOXELS, Need, need, require_memory
from ct_attn.inference.mirroring import mirrored_copies
from ct_attn.inference.options import DEFAULTS, InferenceOptions, Prediction
from ct_attn.inference.restore import Restorer
from ct_attn.inference.windows import (
    WindowPlan,
    choose_slices,
    choose_windows,
    overlap_voxels,
    plan_windows,
)
from ct_attn.labels import LabelScheme
from ct_attn.model_file import ModelFile, read_model_file
from ct_attn.preprocessing import Prepared, resampled, scaled, working_grid
from ct_attn.recipe import Recipe
from ct_attn.volume import Grid, Mask, Shape3, Volume, in_order, size_of

OnWindow = Callable[[int, int], None]
OnNote = Callable[[str], None]
Box = tuple[slice, slice, slice]
T = TypeVar("T")

#: By how much windows are made smaller when a device turns out to be too small for them.
_SHRINKING = 4

#: ``fast``: neighbouring windows share this much of a training patch.
_FAST_OVERLAP = 0.125


def _silent(done: int, total: int) -> None:
    """Hear of progress and say nothing."""


def _no_note(note: str) -> None:
    """Let a note pass unheard."""


class Predictor:
    """Segments scans with one trained network or the mean of several.

    >>> predictor = Predictor.load(Path("RUN/model"))  # doctest: +SKIP
    >>> mask = predictor.predict(read_scan(Path("scan.nii.gz")))  # doctest: +SKIP
    >>> mask.labels == predictor.scheme.codes["pancreas"]  # doctest: +SKIP
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        recipe: Recipe,
        options: InferenceOptions = DEFAULTS,
        *,
        models: Sequence[ModelFile] = (),
        on_note: OnNote = _no_note,
    ) -> None:
        self.backends = list(backends)
        self.options = options
        self.models = tuple(models)
        self.recipe = recipe
        self.on_note = on_note
        self._recipes = [model.recipe for model in models] or [recipe]
        self.preprocessing = coarser(self._recipes) if options.fast else recipe.preprocessing
        mirroring = recipe.inference.mirroring if options.mirroring is None else options.mirroring
        self._flips: list[tuple[int, ...]] = [()]
        self._mirrored: tuple[int, ...] = ()
        if mirroring:
            self._flips, self._mirrored = mirrored_copies(self._recipes)
        if mirroring and len(self._flips) == 1:
            on_note("no axis was mirrored in all training (augmentation.flip_axes): no copies to average")
        self._windows_fixed = windows_fixed(self._recipes, options)
        self._window_voxels = self._least_voxels = 0  # of the last plan, and what they can be
        #: What the networks computed for the last scan.
        self.computed_voxels = 0
        self._most_voxels: int | None = None  # on a device that was too small for more

    @classmethod
    def load(
        cls,
        models: Path | Sequence[Path],
        options: InferenceOptions = DEFAULTS,
        on_note: OnNote = _no_note,
    ) -> Predictor:
        """The model in the folder ``models``, or the mean of several (the folds of one training, say).

        Raises :class:`UserError` when one cannot be used, or they do not predict the same
        targets from the same image.
        """
        files = [read_model_file(path) for path in ([models] if isinstance(models, Path) else models)]
        require_alike(files, options)
        backends = [choose_backend(file, options, on_note) for file in files]
        return cls(backends, files[0].recipe, options, models=files, on_note=on_note)

    @property
    def scheme(self) -> LabelScheme:
        """What the codes of the masks mean."""
        return self.recipe.label_scheme

    def predict(self, volume: Volume, on_window: OnWindow = _silent) -> Mask:
        """The mask of ``volume``, on its own grid, in the codes of :attr:`scheme`."""
        return self.run(volume, on_window=on_window).mask

    def run(
        self, volume: Volume, *, probabilities: bool = False, on_window: OnWindow = _silent
    ) -> Prediction:
        """The mask of ``volume`` with all that is known of how it came about.

        ``probabilities`` of every target take 4 bytes for each voxel of the scan.
        Raises :class:`UserError` when the scan does not fit into the memory allowed.
        """
        notes: list[str] = []
        return self._with_less_memory(
            lambda: self._run(volume, probabilities=probabilities, on_window=on_window, notes=notes), notes
        )

    def estimate(self, grid: Grid) -> int:
        """Bytes that predicting a scan on ``grid`` takes, about, this process and the scan included.

        With windows for all of it: of the patient alone there may be fewer and larger ones.
        """
        working = working_grid(grid, self.preprocessing)
        found = self._need(grid, working, self.backends)
        return self._taken(self._plan(working.shape, found).size, working.shape, found)

    def logits(self, prepared: Prepared, on_window: OnWindow = _silent) -> NDArray[np.float32]:
        """Logits float32 [C, *prepared.grid.shape] on the working grid."""
        plan = self._windows(prepared.source_grid, prepared.grid, *self.backends)
        slabs = blended(
            partial(self._members, clock=StageClock()),
            prepared.image,
            plan,
            n_classes=self.recipe.n_classes,
            on_window=on_window,
        )
        return np.concatenate([slab.values.copy() for slab in slabs], axis=3)

    def attention(self, volume: Volume, on_window: OnWindow = _silent) -> dict[str, Volume]:
        """alpha of every gate, by name, on the grid of ``volume``: float32, of sigmoid gates in 0 to 1.

        Coefficients that are raised to the skip's channels (``gate_coefficients``) are unbounded.

        Level 1 is the finest gated one; overlapping windows are blended as logits are. Of
        several models the first is shown. Raises :class:`UserError` when the network has no gates.
        """
        return self._with_less_memory(
            lambda: attention_maps(
                self.models[0], self.options, volume, self.preprocessing, self._windows, on_window
            ),
            [],
        )

    def features(self, volume: Volume, place_mm: NDArray[np.float64]) -> GateViews:
        """The skips' features before and after every gate in two planes through ``place_mm`` (RAS).

        Computed on one window around it, or on a stack of slices for a network of slices.
        Of several models the first is shown. Raises :class:`UserError` as :meth:`attention` does.
        """
        return self._with_less_memory(
            lambda: gate_views(
                self.models[0], self.options, volume, self.preprocessing, self._windows, place_mm
            ),
            [],
        )

    def _windows(self, scan: Grid, working: Grid, *backends: Backend) -> WindowPlan:
        """The windows for all of ``working``, within the memory allowed to ``backends``."""
        return self._plan(working.shape, self._need(scan, working, backends))

    def _run(
        self, volume: Volume, *, probabilities: bool, on_window: OnWindow, notes: list[str]
    ) -> Prediction:
        clock = StageClock()
        working = resampled(volume, self.preprocessing)
        body = find_body(working) if self.options.body_mask else np.ones(working.grid.shape, dtype=bool)
        prepared = scaled(working, volume.grid, self.preprocessing)
        del working
        plan, box = self._placed(body, self._need(volume.grid, prepared.grid, self.backends))
        self.computed_voxels = plan.voxels * len(self.backends) * len(self._flips)
        # Slices of any plane follow each other along the last axis, so that few are held at a time.
        order = self.recipe.axes
        members, image, plan = in_axes(order, partial(self._members, clock=clock), prepared.image, plan)
        box = in_order(box, order)
        agreement = Agreement(self.recipe.n_classes, plan.layer)
        restorer = Restorer(
            prepared.grid.ordered(order),
            volume.grid,
            box=box,
            n_values=len(self.scheme.names) if probabilities else 0,
            softmax=self.recipe.loss.activation == "softmax",
            sigmoid=self.recipe.loss.activation == "sigmoid",
        )
        clock.lap("resampling")
        origin = (box[0].start, box[1].start, box[2].start)
        for slab in blended(
            members,
            image,
            plan,
            n_classes=self.recipe.n_classes,
            origin=origin,
            wanted=body.transpose(order)[box],
            agreement=agreement,
            on_window=on_window,
        ):
            clock.lap("blending")
            restorer.add(slab.first, slab.values)
            clock.lap("restoring")
        return Prediction(
            mask=restorer.mask(),
            probabilities={
                name: Volume(hu=values, grid=volume.grid)
                for name, values in zip(self.scheme.names, restorer.values, strict=False)
            },
            confidence=dict(zip(self.scheme.names, agreement.of_classes()[1:], strict=True)),
            seconds=clock.seconds,
            notes=tuple(notes),
        )

    def _members(self, window: NDArray[np.float32], clock: StageClock) -> Iterator[NDArray[np.float32]]:
        """What each model says of each mirrored copy of ``window``, turned back: logits [C, I, J, K]."""
        for backend in self.backends:
            for axes in self._flips:
                copy = np.ascontiguousarray(np.flip(window, axes))
                clock.lap("blending")
                outputs = backend.logits(copy[None, None])[0]
                clock.lap("network")
                logits = self._of_classes(outputs)
                logits = np.flip(logits, tuple(axis + 1 for axis in axes))
                yield logits[list(self._mirrored)] if 0 in axes else logits

    def _of_classes(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of all classes; sigmoids get background's in front, 0 for the probability 0.5."""
        if self.recipe.loss.activation == "softmax":
            return outputs
        return np.concatenate([np.zeros_like(outputs[:1]), outputs])

    @property
    def _multiple(self) -> Shape3:
        """What sides of windows must be multiples of, for all models."""
        i, j, k = np.lcm.reduce([recipe.size_multiple for recipe in self._recipes])
        return int(i), int(j), int(k)

    def _need(self, scan: Grid, working: Grid, backends: Sequence[Backend]) -> Need:
        precisions = [backend.precision for backend in backends]
        widest = "fp32" if "fp32" in precisions else precisions[0]
        joins = any(backend.joins_maps for backend in backends)
        networks = [recipe.network for recipe in self._recipes]
        return need(scan, working, networks, self.recipe.n_classes, widest, joins_maps=joins)

    def _plan(self, box: Shape3, needed: Need) -> WindowPlan:
        """The windows for ``box``: of the training's size if asked for, or if the network depends on it.

        Raises :class:`UserError` when the memory allowed is too little for any.
        """
        patch, memory_bytes = self.recipe.training.patch_size, self.options.memory_bytes
        share = _FAST_OVERLAP if self.options.fast else self.recipe.inference.overlap
        share = min(share, self.recipe.inference.overlap)
        overlap = overlap_voxels(patch, share)
        most = self._most_voxels or (MOST_WINDOW_VOXELS if memory_bytes is None else sys.maxsize)

        def fits(size: Shape3) -> bool:
            allowed = memory_bytes is None or self._taken(size, box, needed) <= memory_bytes
            return allowed and prod(size) <= most

        slices = self.recipe.slices
        if slices is not None:
            plan, least = choose_slices(box, patch, share, slices, fits)
        elif self._windows_fixed:
            plan, least = plan_windows(box, patch, overlap), prod(patch)
        else:
            plan, least = choose_windows(box, overlap, self._multiple, fits, patch), prod(self._multiple)
        require_memory(self._taken(plan.size, box, needed), memory_bytes)
        self._window_voxels, self._least_voxels = prod(plan.size), least
        return plan

    def _taken(self, size: Shape3, box: Shape3, needed: Need) -> int:
        """Bytes, with windows of ``size`` for ``box``."""
        return needed.of(in_order(size, self.recipe.axes), in_order(box, self.recipe.axes))

    def _placed(self, body: NDArray[np.bool_], needed: Need) -> tuple[WindowPlan, Box]:
        """The windows, and the box they cover: the body's, grown to a window's size where there is more."""
        box = body_box(body)
        slices = self.recipe.slices
        if slices is not None:  # every slice has its neighbours
            sides = list(box)
            sides[slices.axis] = slice(0, body.shape[slices.axis])
            box = (sides[0], sides[1], sides[2])
        plan = self._plan(size_of(box), needed)
        i, j, k = (
            _grown(side, window, length)
            for side, window, length in zip(box, plan.size, body.shape, strict=True)
        )
        box = (i, j, k)
        return plan_windows(size_of(box), plan.size, plan.overlap, across=plan.across, halo=plan.halo), box

    def _with_less_memory(self, compute: Callable[[], T], notes: list[str]) -> T:
        """What ``compute`` returns, once it finds the memory: each time :meth:`_shrink` comes before."""
        while True:
            try:
                return compute()
            except OutOfMemoryError as error:
                self._shrink(error, notes)

    def _shrink(self, error: OutOfMemoryError, notes: list[str]) -> None:
        """Go on with smaller windows, and at last on the CPU."""
        most = self._window_voxels // _SHRINKING
        smaller = most >= self._least_voxels
        if not smaller and (not self.models or self.options.device == "cpu"):
            raise UserError(
                self.recipe.name,
                expected="memory for one window",
                found=str(error),
                remedy="close other programs, or take another --device",
            ) from error
        if smaller:
            self._most_voxels = most
            note = f"the device is out of memory: going on with windows of at most {most:,} voxels"
        else:
            self._most_voxels = None
            self.options = replace(self.options, device="cpu")
            self.backends = [choose_backend(model, self.options, self.on_note) for model in self.models]
            note = "the device is out of memory: going on with the CPU"
        notes.append(note)
        self.on_note(note)


def _grown(side: slice, window: int, length: int) -> slice:
    """``side`` of a box, at least ``window`` long where there is that much, about where it was."""
    missing = min(window, length) - (side.stop - side.start)
    if missing <= 0:
        return side
    start = min(max(0, side.start - missing // 2), length - min(window, length))
    return slice(start, start + min(window, length))
