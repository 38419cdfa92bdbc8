"""Prepared cases on disk, memory-mapped: each scan is decoded and resampled once.

An entry is one safetensors file per case: ``image`` float16 (a 400 HU window keeps 0.2
HU apart), ``label`` uint8, and where each class lies (:mod:`ct_attn.training.class_runs`).
Its key follows from the bytes of scan and label map, the preprocessing and both label
schemes, so whatever changes one of these finds no old entry. The header carries the
key and a digest of the arrays. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ct_attn.atomic import replacing
from ct_attn.errors import UserError
from ct_attn.labels import LabelScheme, known_classes
from ct_attn.manifest import source_digest
from ct_attn.preprocessing import PreprocessingConfig
from ct_attn.training.cases import CaseFiles, loading
from ct_attn.training.class_runs import ClassRuns, find_runs
from ct_attn.volume import Shape3, Spacing3

FOLDER_NAME = ".ct_attn_cache"
#: To be raised whenever the same files and configs give other arrays or another layout.
FORMAT = "ct_attn prepared case 2"

_RUNS = ("starts", "before", "first", "voxels")
#: The order safetensors lays tensors down in: widest type first, then by name.
_ON_DISK = (*sorted(_RUNS), "image", "label")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MappedCase:
    """Arrays of an open entry: views of the file that are read where they are touched.

    ``image`` float16 [I, J, K] in 0 to 1, ``label`` uint8 [I, J, K], both on the working
    grid, whose voxels measure ``spacing_mm``. Memory is given back when the last view goes.
    """

    image: Tensor
    label: Tensor
    runs: ClassRuns
    spacing_mm: Spacing3

    @property
    def shape(self) -> Shape3:
        i, j, k = self.label.shape
        return int(i), int(j), int(k)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedCase:
    """A case whose arrays are in ``file``; ``known``: the classes that it labels in full."""

    case_id: str
    file: Path
    known: tuple[bool, ...]

    def open(self) -> MappedCase:
        """Map the arrays. Raises :class:`UserError` when the file is no longer there or whole."""
        try:
            with safe_open(self.file, framework="pt") as opened:
                views = {name: opened.get_slice(name)[:] for name in _ON_DISK}
                i, j, k = json.loads(opened.metadata()["spacing_mm"])
        except (OSError, SafetensorError) as error:
            raise UserError(
                self.file,
                expected=f"the prepared case {self.case_id}",
                found=f"none, or a damaged one ({error})",
                remedy="go on with --resume, which makes it anew",
            ) from error
        runs = ClassRuns(**{name: views[name] for name in _RUNS})
        return MappedCase(image=views["image"], label=views["label"], runs=runs, spacing_mm=(i, j, k))


def fill(
    cases: Sequence[CaseFiles],
    folder: Path,
    *,
    source: LabelScheme,
    target: LabelScheme,
    preprocessing: PreprocessingConfig,
    share: tuple[int, int] = (0, 1),
    on_case: Callable[[], object] = lambda: None,
) -> list[CachedCase]:
    """``cases`` as entries of ``folder``; what is not there, or damaged, is made.

    ``source`` are the codes of the label files, ``target`` those of the network. Entries
    appear whole or not at all, so this may be interrupted, and other processes may fill
    the same folder meanwhile. ``share``: of several that do so together, which this is and
    how many; each begins with other cases and finds most of the rest made when it comes to
    them. ``on_case`` is called after each case. Raises :class:`UserError` when a case
    cannot be used or ``folder`` not be written to.
    """
    load = loading(source, preprocessing, target)
    n_classes = len(target.structures) + 1
    made: dict[str, CachedCase] = {}
    begin = len(cases) * share[0] // share[1]
    for case in (*cases[begin:], *cases[:begin]):
        key = _key(case, source=source, target=target, preprocessing=preprocessing)
        file = folder / f"{case.case_id}-{key[:16]}.safetensors"
        if not _is_whole(file, key):
            prepared = load(case)
            write_entry(
                prepared["image"][0],
                prepared["label"][0],
                file,
                key=key,
                n_classes=n_classes,
                spacing_mm=prepared["spacing_mm"],
            )
        known = tuple(known_classes(target, case.labelled_organs))
        made[case.case_id] = CachedCase(case_id=case.case_id, file=file, known=known)
        on_case()
    return [made[case.case_id] for case in cases]


def write_entry(
    image: Tensor, label: Tensor, file: Path, *, key: str, n_classes: int, spacing_mm: Spacing3
) -> None:
    """Write ``image`` float16 and ``label`` uint8 [I, J, K] as an entry, whole or not at all.

    ``spacing_mm`` is that of the working grid. Raises :class:`UserError` when there is no room
    or no permission.
    """
    runs = find_runs(label.numpy(), n_classes)
    tensors = {
        "image": image.contiguous(),
        "label": label.contiguous(),
        **{name: getattr(runs, name) for name in _RUNS},
    }
    digest = hashlib.sha256()
    for name in _ON_DISK:
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    header = {
        "format": FORMAT,
        "key": key,
        "digest": digest.hexdigest(),
        "spacing_mm": json.dumps(spacing_mm),
    }
    try:
        with replacing(file) as partial:
            save_file(tensors, partial, metadata=header)
    except (OSError, SafetensorError) as error:
        size_mb = sum(tensor.nbytes for tensor in tensors.values()) / 1e6
        raise UserError(
            file.parent,
            expected=f"a folder with room for a prepared case ({size_mb:.0f} MB)",
            found=getattr(error, "strerror", None) or str(error),
            remedy="make room or choose another --cache",
        ) from error


def choose_folder(manifest: Path, *, otherwise: Path) -> Path:
    """The cache beside ``manifest``, or ``otherwise`` where it cannot be written."""
    beside = manifest.parent / FOLDER_NAME
    try:
        beside.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=beside):
            return beside
    except OSError:
        return otherwise


def _key(
    case: CaseFiles, *, source: LabelScheme, target: LabelScheme, preprocessing: PreprocessingConfig
) -> str:
    """What an entry is made from, as a hexadecimal digest."""
    decisive = {
        "format": FORMAT,
        "image": source_digest(case.image),
        "label": source_digest(case.label),
        "preprocessing": preprocessing.model_dump(mode="json"),
        "source": [(s.code, sorted(s.organs)) for s in source.structures],
        "target": [(s.code, sorted(s.organs)) for s in target.structures],
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def _is_whole(file: Path, key: str) -> bool:
    """Whether ``file`` is the entry for ``key`` and its arrays are those that were written."""
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            names = set(opened.keys())
        return (
            header.get("format") == FORMAT
            and header.get("key") == key
            and names == set(_ON_DISK)
            and header.get("digest") == _digest_on_disk(file)
        )
    except (OSError, SafetensorError):
        return False


def _digest_on_disk(file: Path) -> str:
    """Of all bytes behind the header, whose length the first eight bytes give."""
    with file.open("rb") as opened:
        opened.seek(8 + int.from_bytes(opened.read(8), "little"))
        return hashlib.file_digest(opened, "sha256").hexdigest()
