"""Cases beside their truth: which are chosen, which masks are taken, and which are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ct_attn.compare import compare
from ct_attn.compare_pictures import Evaluated, Picturing, most_different
from ct_attn.errors import UserError
from ct_attn.evaluate import evaluate
from ct_attn.labels import DISK_SCHEME, PAPER_SCHEME
from ct_attn.metrics.scores import CaseScore, State
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Mask

GRID = Grid(shape=(30, 26, 20), affine=np.diag([3.0, 3.0, 5.0, 1.0]))
CASES = ("one", "two", "three")


def write(path, shift, scheme=DISK_SCHEME):
    """A spleen and a kidney, ``shift`` voxels away from the truth."""
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[4 + shift : 14 + shift, 4:14, 4:12] = scheme.codes["spleen"]
    labels[18:26, 14 : 22 + shift, 6:14] = scheme.codes.get("left_kidney", scheme.codes.get("kidney"))
    nifti.write_mask(Mask(labels=labels, grid=GRID), path, scheme=scheme)


@pytest.fixture
def runs(tmp_path, silent):
    """Two evaluations: of masks beside them, and of masks elsewhere; ``two`` differs most."""
    for number, case in enumerate(CASES):
        write(tmp_path / "truth" / f"{case}.nii.gz", 0)
        write(tmp_path / "good" / "masks" / f"{case}.nii.gz", 0, PAPER_SCHEME)
        write(tmp_path / "elsewhere" / f"{case}.nii.gz", (1, 4, 2)[number], PAPER_SCHEME)
    for name, masks in (("good", tmp_path / "good" / "masks"), ("poor", tmp_path / "elsewhere")):
        evaluate(tmp_path / "truth", masks, tmp_path / name / "scores", progress=silent)
    return [f"{name}={tmp_path / name / 'scores'}" for name in ("good", "poor")]


def picturing(folder: Path, n=1, **changes) -> Picturing:
    fields = {"truth": folder / "truth", "predicted": {"poor": folder / "elsewhere"}}
    return Picturing(n=n, **{**fields, **changes})


def test_pictures_are_written_and_embedded_without_a_path(runs, tmp_path):
    made = compare(runs, tmp_path / "out", picturing=picturing(tmp_path, n=2))
    assert [path.relative_to(tmp_path / "out").as_posix() for path in made.pictures] == [
        "pictures/two_slices.png", "pictures/two_surfaces.png",
        "pictures/three_slices.png", "pictures/three_surfaces.png",
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made.pictures)
    page = made.report.read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "Cases side by side" in page
    assert str(tmp_path) not in page
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in made.pictures)


def test_without_pictures_there_are_none(runs, tmp_path):
    made = compare(runs, tmp_path / "out")
    assert made.pictures == ()
    assert "Cases side by side" not in made.report.read_text()
    assert not (tmp_path / "out" / "pictures").exists()


def test_the_same_masks_give_the_same_bytes(runs, tmp_path):
    first, second = (
        compare(runs, tmp_path / name, picturing=picturing(tmp_path)).pictures for name in ("a", "b")
    )
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_masks_that_were_not_scored_are_refused_and_nothing_is_written(runs, tmp_path):
    write(tmp_path / "elsewhere" / "two.nii.gz", 3, PAPER_SCHEME)
    with pytest.raises(UserError, match=r"two\.nii\.gz: expected the mask that was evaluated, with .* ml of"):
        compare(runs, tmp_path / "out", picturing=picturing(tmp_path))
    write(tmp_path / "elsewhere" / "two.nii.gz", 4, PAPER_SCHEME)
    write(tmp_path / "truth" / "two.nii.gz", 1)
    with pytest.raises(UserError, match="give --truth and --predicted as they were evaluated"):
        compare(runs, tmp_path / "out", picturing=picturing(tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_truth_of_other_cases_is_refused(runs, tmp_path):
    for folder in ("truth", "elsewhere", "good/masks"):
        (tmp_path / folder / "two.nii.gz").unlink()
    with pytest.raises(UserError, match="truth: expected two, which the runs have scored"):
        compare(runs, tmp_path / "out", picturing=picturing(tmp_path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"truth": None}, "--pictures: expected the masks .* found no --truth"),
        ({"predicted": {}}, "poor: expected its masks .* --predicted poor=FOLDER"),
        ({"predicted": {"third": Path()}}, "--predicted third=...: expected one of the runs good, poor"),
        ({"n": 0}, "found no --pictures"),
    ],
)
def test_what_is_missing_is_said(runs, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        compare(runs, tmp_path / "out", picturing=picturing(tmp_path, **changes))
    assert not (tmp_path / "out").exists()


def test_of_repeated_runs_the_first_is_drawn_and_it_is_said(runs, tmp_path):
    again = shutil.copytree(tmp_path / "good" / "scores", tmp_path / "again")
    made = compare([*runs, f"poor={again}"], tmp_path / "out", picturing=picturing(tmp_path))
    assert "poor: the first of its 2 repeated runs is drawn." in made.notes


def score(case_id, dsc, organ="spleen"):
    return (case_id, organ), CaseScore(case_id=case_id, organ=organ, state=State.SCORED, dsc=dsc)


def test_the_cases_that_differ_most_come_first():
    first = Evaluated(folder=Path(), scores=dict([score("a", 0.5), score("b", 0.9), score("c", 0.2)]))
    second = Evaluated(folder=Path(), scores=dict([score("a", 0.6), score("b", 0.4), score("c", 0.5)]))
    assert most_different([first, second], 2) == ["b", "c"]
    assert most_different([first, second], 9) == ["b", "c", "a"]
