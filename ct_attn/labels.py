"""What the codes of a label map mean.

A :class:`LabelScheme` lists structures: a code, a name, and the organs it is
made of. The same type describes label files on disk (which keep left and right
kidney apart), what a network predicts (kidney = left + right by default), and
codes from elsewhere; :func:`recode` turns one into another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ORGANS = ("pancreas", "spleen", "left_kidney", "right_kidney")


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """One code of a label map; ``organs`` are the members of :data:`ORGANS` it covers."""

    code: int
    name: str
    organs: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.code <= 255:
            raise ValueError(f"{self.name}: a code is 1 to 255, got {self.code}")
        if not self.organs or len(set(self.organs)) != len(self.organs):
            raise ValueError(f"{self.name}: a structure has at least one organ, each once")
        unknown = sorted(set(self.organs) - set(ORGANS))
        if unknown:
            raise ValueError(
                f"{self.name}: unknown organ {', '.join(unknown)}; known are {', '.join(ORGANS)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScheme:
    """The structures of a label map, by rising code; code 0 is background.

    Raises ``ValueError`` when a code, a name or an organ appears twice.
    """

    structures: tuple[Structure, ...]

    def __post_init__(self) -> None:
        for what, values in (
            ("code", [structure.code for structure in self.structures]),
            ("name", [structure.name for structure in self.structures]),
            ("organ", [organ for structure in self.structures for organ in structure.organs]),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"a label scheme names every {what} once, got {values}")
        ordered = tuple(sorted(self.structures, key=lambda structure: structure.code))
        object.__setattr__(self, "structures", ordered)

    @classmethod
    def from_targets(cls, targets: Mapping[str, Iterable[str]]) -> LabelScheme:
        """The scheme of a network: targets get the codes 1, 2, ... in their order."""
        return cls(
            structures=tuple(
                Structure(code=code, name=name, organs=tuple(organs))
                for code, (name, organs) in enumerate(targets.items(), start=1)
            )
        )

    @classmethod
    def from_names(cls, codes: Mapping[str, int]) -> LabelScheme:
        """The scheme with these names and codes; ``kidney`` means both kidneys."""
        return cls(
            structures=tuple(
                Structure(code=code, name=name, organs=KIDNEYS if name == "kidney" else (name,))
                for name, code in codes.items()
            )
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(structure.name for structure in self.structures)

    @property
    def codes(self) -> dict[str, int]:
        return {structure.name: structure.code for structure in self.structures}

    def unknown_codes(self, labels: NDArray[np.uint8]) -> list[int]:
        """Codes that occur in ``labels`` and have no meaning here."""
        present = np.zeros(256, dtype=bool)
        present[labels.ravel()] = True
        present[[0, *self.codes.values()]] = False
        return [int(code) for code in np.flatnonzero(present)]


KIDNEYS = ("left_kidney", "right_kidney")

#: What an organ is in the mirror image of a patient; the others stay what they are.
MIRRORED = {"left_kidney": "right_kidney", "right_kidney": "left_kidney"}

#: What label files on disk hold: sides kept apart.
DISK_SCHEME = LabelScheme.from_names({organ: code for code, organ in enumerate(ORGANS, start=1)})

#: What the networks of Oktay et al. 2018 predict (background plus these: 4 logits).
PAPER_TARGETS: dict[str, tuple[str, ...]] = {
    "pancreas": ("pancreas",),
    "spleen": ("spleen",),
    "kidney": KIDNEYS,
}
PAPER_SCHEME = LabelScheme.from_targets(PAPER_TARGETS)


def recode(labels: NDArray[np.uint8], source: LabelScheme, target: LabelScheme) -> NDArray[np.uint8]:
    """The label map ``labels`` [...], given in ``source``'s codes, in ``target``'s codes.

    Structures that ``target`` does not have become background. Raises
    ``ValueError`` when a structure of ``source`` lies only partly inside one of
    ``target`` (kidney cannot be told apart into left and right).
    """
    table = np.zeros(256, dtype=np.uint8)
    for structure in source.structures:
        for wanted in target.structures:
            shared = set(structure.organs) & set(wanted.organs)
            if not shared:
                continue
            if shared != set(structure.organs):
                raise ValueError(f"{structure.name} cannot be told apart into {wanted.name} and the rest")
            table[structure.code] = wanted.code
    return table[labels]


def known_classes(scheme: LabelScheme, labelled_organs: Collection[str]) -> list[bool]:
    """Background, then each structure: whether a case with ``labelled_organs`` labels it in full.

    Background counts as known; that a voxel labelled 0 may be an organ that is not
    labelled is for the loss to heed.
    """
    return [True, *(set(structure.organs) <= set(labelled_organs) for structure in scheme.structures)]


def mirrored_codes(scheme: LabelScheme) -> tuple[int, ...]:
    """The code that each code 0 to 255 has in the mirror image of a patient, left for right.

    Codes without a meaning stay. Raises ``ValueError`` when the mirror image of a
    structure is none of ``scheme`` (a left kidney where right ones have no code).
    """
    table = list(range(256))
    for structure in scheme.structures:
        mirrored = {MIRRORED.get(organ, organ) for organ in structure.organs}
        twin = next((other for other in scheme.structures if set(other.organs) == mirrored), None)
        if twin is None:
            raise ValueError(f"the mirror image of {structure.name} has no code of its own")
        table[structure.code] = twin.code
    return tuple(table)


def comparable_structures(truth: LabelScheme, predicted: LabelScheme) -> LabelScheme:
    """The structures in which two schemes can be compared: the coarser of both.

    A prediction of "kidney" against truth with both sides is compared as kidney,
    and a sided prediction against unsided truth likewise. Structures only one of
    the schemes knows in full are left out. Codes are renumbered.
    """
    shared = [structure for structure in predicted.structures if _is_union_of(structure, truth)]
    covered = {organ for structure in shared for organ in structure.organs}
    shared += [
        structure
        for structure in truth.structures
        if not covered & set(structure.organs) and _is_union_of(structure, predicted)
    ]
    return LabelScheme.from_targets({structure.name: structure.organs for structure in shared})


def _is_union_of(structure: Structure, scheme: LabelScheme) -> bool:
    """Whether ``structure`` is exactly a union of structures of ``scheme``."""
    wanted = set(structure.organs)
    inside = {organ for part in scheme.structures if set(part.organs) <= wanted for organ in part.organs}
    return inside == wanted
