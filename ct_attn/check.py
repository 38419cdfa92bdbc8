"""The step that proves a manifest: digests, grids, codes, fit of labels to scans, leakage between folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from ct_attn.labels import ORGANS
from ct_attn.manifest import Case, Manifest, read_manifest, write_manifest
from ct_attn.preparation.examine import (
    WORSE_THAN_OTHERS,
    CaseCheck,
    CheckJob,
    Rivals,
    check_case,
    find_better_label,
)
from ct_attn.workers import run_in_processes

#: Among so few scans on one grid every label is tried on every scan; among more, only on those
#: whose own label fits badly.
FEW = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with a case (or several), in a plain sentence that names no path of the machine."""

    case_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What :func:`check` found: ``wrong`` must be mended, ``doubtful`` should be looked at.

    ``unverified`` files had no digest to compare with; ``verified`` ones have theirs.
    """

    manifest: Manifest
    wrong: tuple[Finding, ...]
    doubtful: tuple[Finding, ...]
    verified: int
    unverified: int
    filled: int


def check(
    path: Path,
    *,
    progress: Progress,
    data_root: Path | None = None,
    fill_digests: bool = False,
    jobs: int = 1,
) -> Check:
    """Examine every case of the manifest ``path``, whose files lie in ``data_root`` or beside it.

    With ``fill_digests`` the digests that are missing are written into the manifest, for
    the cases with which nothing is wrong. Raises :class:`UserError` when the manifest
    can't be read.
    """
    manifest = read_manifest(path)
    root = path.parent if data_root is None else data_root
    by_id = _examine(manifest, root, progress, jobs)
    wrong = [Finding(case_id=one.case_id, text=text) for one in by_id.values() for text in one.wrong]
    doubtful = [Finding(case_id=one.case_id, text=text) for one in by_id.values() for text in one.doubtful]
    wrong += _leaks(manifest, by_id)
    wrong += _swaps(manifest, by_id, root, progress, jobs)
    filled = 0
    if fill_digests:
        filled = _fill(manifest, path, by_id, {finding.case_id for finding in wrong})
    stated = [digest for case in manifest.cases for digest in (case.image_digest, case.label_digest)]
    missing = stated.count(None)
    return Check(
        manifest=manifest,
        wrong=tuple(wrong),
        doubtful=tuple(doubtful),
        verified=sum(one.verified for one in by_id.values()),
        unverified=missing,
        filled=filled,
    )


def _examine(manifest: Manifest, root: Path, progress: Progress, jobs: int) -> dict[str, CaseCheck]:
    """What each case shows, in the manifest's order."""
    work = [CheckJob(case=case, root=root, scheme=manifest.label_scheme) for case in manifest.cases]
    task = progress.add_task("checking", total=len(work))
    found: dict[str, CaseCheck] = {}
    for job, result in run_in_processes(check_case, work, jobs=jobs):
        found[job.case.case_id] = result
        progress.update(task, advance=1, description=f"checked {job.case.case_id}")
    return {case.case_id: found[case.case_id] for case in manifest.cases}


def _part(case: Case) -> str:
    return "test" if case.fold is None else f"fold {case.fold}"


def _leaks(manifest: Manifest, by_id: Mapping[str, CaseCheck]) -> Iterator[Finding]:
    """Patients and scans that lie in more than one fold, or in a fold and the test cases."""
    patients = {case.case_id: case.patient_id for case in manifest.cases}
    scans = {case_id: one.voxels for case_id, one in by_id.items() if one.voxels is not None}
    for what, owner in (("patient", patients), ("scan", scans)):
        for group in _groups(manifest, owner):
            if len({_part(case) for case in group}) > 1:
                places = ", ".join(f"{case.case_id} in {_part(case)}" for case in group)
                yield Finding(
                    case_id=group[0].case_id, text=f"leaks between folds, the same {what}: {places}"
                )


def _groups(manifest: Manifest, owner: Mapping[str, str]) -> list[list[Case]]:
    """Cases with the same owner, where there are several."""
    groups: dict[str, list[Case]] = {}
    for case in manifest.cases:
        if case.case_id in owner:
            groups.setdefault(owner[case.case_id], []).append(case)
    return [group for group in groups.values() if len(group) > 1]


def _swaps(
    manifest: Manifest, by_id: Mapping[str, CaseCheck], root: Path, progress: Progress, jobs: int
) -> list[Finding]:
    """Labels without a digest that lie better on another scan of the same grid than on their own."""
    grids = {
        case.case_id: one.grid_key
        for case in manifest.cases
        if case.label_digest is None and (one := by_id[case.case_id]).fit is not None
    }
    work = [
        Rivals(case=case, others=tuple(one for one in group if one is not case), root=root,
               scheme=manifest.label_scheme)
        for group in _groups(manifest, grids)
        for case in group
        if len(group) <= FEW or _is_doubtful(by_id[case.case_id], [by_id[one.case_id] for one in group])
    ]  # fmt: skip
    task = progress.add_task("trying other labels", total=len(work), visible=bool(work))
    found = {}
    for job, better in run_in_processes(find_better_label, work, jobs=jobs):
        found[job.case.case_id] = better
        progress.advance(task)
    return [Finding(case_id=case_id, text=text) for case_id, text in sorted(found.items()) if text]


def _is_doubtful(one: CaseCheck, group: Sequence[CaseCheck]) -> bool:
    fits = sorted(other.fit for other in group if other.fit is not None)
    return one.fit is not None and one.fit < WORSE_THAN_OTHERS * fits[len(fits) // 2]


def _fill(manifest: Manifest, path: Path, by_id: Mapping[str, CaseCheck], wrong: set[str]) -> int:
    """Write the digests that are missing, but of cases with which something is ``wrong``; how many."""
    filled = 0

    def completed(case: Case) -> Case:
        nonlocal filled
        if case.case_id in wrong:
            return case
        one = by_id[case.case_id]
        missing = {
            field: digest
            for field, digest in (("image_digest", one.image_digest), ("label_digest", one.label_digest))
            if getattr(case, field) is None and digest is not None
        }
        filled += len(missing)
        return case.model_copy(update=missing)

    training, test = (tuple(map(completed, cases)) for cases in (manifest.training, manifest.test))
    if filled:
        write_manifest(manifest.model_copy(update={"training": training, "test": test}), path)
    return filled


def summary_lines(result: Check) -> list[str]:
    """How many cases, of which organs, in which folds, and what was verified."""
    cases = result.manifest.cases
    folds = {
        part: sum(_part(case) == part for case in cases) for part in sorted({_part(case) for case in cases})
    }
    organs = {organ: sum(organ in case.labelled_organs for case in cases) for organ in ORGANS}
    patients = len({case.patient_id for case in cases})
    return [
        f"cases     {len(cases)} of {patients} patients",
        f"folds     {', '.join(f'{part}: {count}' for part, count in folds.items())}",
        f"organs    {', '.join(f'{organ}: {count}' for organ, count in organs.items())}",
        f"digests   {result.verified} verified, {result.unverified} unverified"
        + (f" (filled in now: {result.filled})" if result.filled else ""),
    ]
