"""What a data set on disk comes down to: cases with their files, codes, and what is amiss."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ct_attn.datasets.pseudonyms import Key
from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME, KIDNEYS, ORGANS, LabelScheme
from ct_attn.scan_io import nifti

_CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_BOTH_SIDES = "kidney"

#: What a foreign code may mean: an organ, or both kidneys.
NAMES = (*ORGANS, _BOTH_SIDES)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTable:
    """What the codes of foreign label files mean.

    ``organs``: code -> organ, or ``kidney`` where both sides have one code; several codes
    may mean one organ (pancreas and its tumour). ``ignored``: codes of structures that
    nothing is predicted for. Any other code but 0 is unknown. Raises ``ValueError`` for an
    unknown organ, ``kidney`` beside one of its sides, or a code that is not 1 to 255 or
    stands in both.
    """

    organs: Mapping[int, str]
    ignored: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = set(self.organs.values())
        unknown = sorted(names - set(NAMES))
        if unknown:
            raise ValueError(f"unknown organ {', '.join(unknown)}; known are {', '.join(NAMES)}")
        if _BOTH_SIDES in names and names & set(KIDNEYS):
            raise ValueError(f"{_BOTH_SIDES} beside {', '.join(sorted(names & set(KIDNEYS)))}")
        codes = [*self.organs, *self.ignored]
        if len(set(codes)) != len(codes) or not all(1 <= code <= 255 for code in codes):
            raise ValueError(f"codes are 1 to 255, each once, got {', '.join(map(str, codes))}")

    @property
    def labelled_organs(self) -> tuple[str, ...]:
        """The organs that the label files were made for, in the order of ``ORGANS``."""
        organs = {organ for structure in self.scheme.structures for organ in structure.organs}
        return tuple(organ for organ in ORGANS if organ in organs)

    @property
    def scheme(self) -> LabelScheme:
        """What the table names, each by one code: 1, 2, ... in the order of ``NAMES``."""
        names = [name for name in NAMES if name in self.organs.values()]
        return LabelScheme.from_names({name: code for code, name in enumerate(names, start=1)})

    @property
    def known(self) -> Mapping[int, str]:
        """Every code of the table and what it means, ignored ones too, by rising code."""
        return dict(sorted({**self.organs, **self.ignored}.items()))

    def strangers(self, labels: NDArray[np.uint8]) -> list[int]:
        """The codes that occur in ``labels`` [I, J, K] and that the table doesn't know."""
        present = np.zeros(256, dtype=bool)
        for plane in np.moveaxis(labels, -1, 0):  # numpy makes 8 bytes of every index: a slice at a time
            present[np.unique(plane)] = True
        present[[0, *self.known]] = False
        return [int(code) for code in np.flatnonzero(present)]

    def recoded(self, labels: NDArray[np.uint8], target: LabelScheme) -> NDArray[np.uint8]:
        """``labels`` [I, J, K] in the codes that ``target`` has for the names of the table.

        Other codes become background.
        """
        table = np.zeros(256, dtype=np.uint8)
        for code, name in self.organs.items():
            table[code] = target.codes[name]
        recoded = np.empty_like(labels)
        for index in range(labels.shape[-1]):
            recoded[..., index] = table[labels[..., index]]
        return recoded

    def to_disk_codes(self, labels: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        """``labels``, read from ``path``, in the codes of ``DISK_SCHEME``, which tells sides apart.

        Raises :class:`UserError` when a code occurs that the table does not know, and
        ``KeyError`` for a table that has both kidneys in one.
        """
        strangers = self.strangers(labels)
        if strangers:
            known = ", ".join(f"{code} {name}" for code, name in self.known.items())
            raise UserError(
                path,
                expected=f"the label codes 0 background, {known}",
                found=f"code {', '.join(map(str, strangers))}",
                remedy="check which data set it is from, or mend the file",
            )
        return self.recoded(labels, DISK_SCHEME)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFile:
    """A label map: its NIfTI file, its codes, and whether its header says where it lies.

    Where it does not, the flips are proven from the image.
    """

    path: Path
    table: CodeTable
    header_is_trusted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCase:
    """A scan (NIfTI file or folder of one DICOM series) and its label maps.

    Where label maps overlap, the first one has the voxel.
    """

    case_id: str
    patient_id: str
    image: Path
    labels: tuple[LabelFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A data set as found on disk.

    ``refused`` tells by case id why a case can't be used at all; ``notices`` say in
    plain sentences what is missing, in excess or withdrawn. Neither holds a path. ``key``:
    which case is which, where they were numbered; nothing of it goes into the prepared data.
    """

    name: str
    source: str
    licence: str
    cases: tuple[SourceCase, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    key: Key | None = None


def require_folder(path: Path, what: str) -> None:
    """Raise :class:`UserError` unless ``path`` is a folder, which should be ``what``."""
    if not path.is_dir():
        found = "a file" if path.exists() else "no such folder"
        raise UserError(path, expected=what, found=found, remedy="check the path")


def require_cases(cases: Collection[SourceCase | str], path: Path, what: str, *, found: str = "none") -> None:
    """Raise :class:`UserError` unless there are ``cases`` in ``path``."""
    if not cases:
        raise UserError(path, expected=what, found=found, remedy="check the path and the folders' names")


def nifti_files(folder: Path) -> dict[str, Path]:
    """The NIfTI files directly in ``folder`` by stem; hidden ones ("._" of macOS) are passed over.

    Raises :class:`UserError` when two have the same stem.
    """
    require_folder(folder, "a folder of NIfTI files")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not nifti.has_nifti_name(path) or not path.is_file():
            continue
        stem = nifti.stem(path)
        if stem in found:
            raise UserError(
                folder,
                expected="one file for each case",
                found=f"{found[stem].name} and {path.name}",
                remedy="remove one",
            )
        found[stem] = path
    return found


def numbered(files: Iterable[Path], pattern: str) -> tuple[dict[int, list[Path]], list[Path]]:
    """Files by the number that the regular expression's only group finds in their names; and the rest."""
    by_number: dict[int, list[Path]] = {}
    strangers = []
    for path in files:
        match = re.fullmatch(pattern, path.name, flags=re.IGNORECASE)
        if match:
            by_number.setdefault(int(match[1]), []).append(path)
        else:
            strangers.append(path)
    return by_number, strangers


def is_case_id(text: str) -> bool:
    """Whether ``text`` can name files and cases."""
    return _CASE_ID.fullmatch(text) is not None


def ranges(numbers: Iterable[int]) -> str:
    """Such as ``1-3, 7`` for 1, 2, 3 and 7."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def pair_by_stem(
    images: Mapping[str, Path], labels: Mapping[str, Path], table: CodeTable
) -> tuple[list[SourceCase], list[str]]:
    """A case for each stem that has both files; and notices of what has only one."""
    shared = sorted(set(images) & set(labels))
    cases = [
        SourceCase(
            case_id=stem,
            patient_id=stem,
            image=images[stem],
            labels=(LabelFile(path=labels[stem], table=table),),
        )
        for stem in shared
    ]
    notices = [
        f"{what}: {', '.join(sorted(names))}"
        for what, names in (
            ("scans without a label", set(images) - set(labels)),
            ("labels without a scan", set(labels) - set(images)),
        )
        if names
    ]
    return cases, notices
