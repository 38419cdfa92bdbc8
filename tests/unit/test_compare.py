"""Comparison from files to files."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from ct_attn.compare import compare
from ct_attn.errors import UserError
from ct_attn.metrics.scores import CaseScore, State, SurfaceConvention
from ct_attn.metrics.statistics import summarize
from ct_attn.report.score_files import ScoreSettings, write_scores_csv, write_scores_json
from tests.studies import simulated_study


def scores_of(dsc, cases=("a", "b", "c"), organs=("spleen",)):
    return [
        CaseScore(
            case_id=case_id, organ=organ, state=State.SCORED, dsc=dsc + 0.01 * n, precision=0.9, recall=0.8,
            s2s_mm=2 - dsc + 0.1 * n, hd95_mm=4.0, surface_dsc_2mm=dsc, truth_ml=100.0 + n,
            predicted_ml=101.0,
        )
        for n, case_id in enumerate(cases)
        for organ in organs
    ]  # fmt: skip


def evaluation(folder, scores, **settings):
    write_scores_json(folder / "scores.json", scores, summarize(scores), ScoreSettings(**settings))
    write_scores_csv(folder / "scores.csv", scores)
    return str(folder)


@pytest.fixture
def two(tmp_path):
    return [
        evaluation(tmp_path / "unet" / "evaluation", scores_of(0.7)),
        evaluation(tmp_path / "attention" / "evaluation", scores_of(0.8)),
    ]


def test_it_writes_tables_numbers_and_a_report(two, tmp_path):
    made = compare(two, tmp_path / "out")
    assert list(made.runs) == ["unet", "attention"]
    dsc = made.pairs[0]
    assert (dsc.measure, dsc.first, dsc.second, dsc.wins) == ("dsc", "unet", "attention", 3)
    assert dsc.difference == pytest.approx(0.1)
    record = json.loads(made.comparison_json.read_text())
    assert record["pairs"][0]["difference"] == dsc.difference
    assert record["rankings"][0]["ranks"] == {"unet": 2, "attention": 1}
    assert record["volumes"][0]["bias_ml"] == 0
    with made.comparison_csv.open() as file:
        assert next(csv.DictReader(file))["second"] == "attention"
    assert made.markdown.read_text().splitlines()[2] == "| Spleen DSC | 3 | 0.710 ± 0.010 | 0.810 ± 0.010 |"
    assert r"Spleen S2S (mm) & 3 & 1.400 $\pm$ 0.100 & 1.300 $\pm$ 0.100 \\" in made.latex.read_text()
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "out").iterdir())


def test_the_same_runs_give_the_same_bytes(two, tmp_path):
    for name in ("one", "two"):
        compare(two, tmp_path / name)
    one, other = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == other


@pytest.mark.parametrize("name", ["scores.json", "scores.csv"])
def test_a_run_may_be_a_file_and_have_a_name(two, tmp_path, name):
    made = compare([f"first={two[0]}/{name}", f"{two[1]}/{name}"], tmp_path / "out")
    assert list(made.runs) == ["first", "attention"] or list(made.runs) == ["first", "evaluation"]
    assert made.pairs[0].difference == pytest.approx(0.1)


def test_usual_names_are_the_shortest_that_differ(tmp_path):
    folders = [("x", "seed1"), ("y", "seed1"), ("y", "seed2")]
    paths = [evaluation(tmp_path.joinpath(*parts, "evaluation"), scores_of(0.7)) for parts in folders]
    assert list(compare(paths, tmp_path / "out").runs) == ["x/seed1", "y/seed1", "y/seed2"]


def test_a_folder_of_evaluations_is_averaged(two, tmp_path):
    for seed, dsc in enumerate((0.6, 0.9)):
        evaluation(tmp_path / "seeds" / f"seed{seed}" / "evaluation", scores_of(dsc))
    made = compare([f"unet={two[0]}", f"seeds={tmp_path / 'seeds'}"], tmp_path / "out")
    assert made.runs["seeds"][0].dsc == pytest.approx(0.75)
    assert made.notes == ("seeds is the average of 2 repeated runs, case by case.",)
    assert made.notes[0] in made.report.read_text()


def test_one_name_twice_is_averaged(two, tmp_path):
    more = evaluation(tmp_path / "more", scores_of(0.9))
    made = compare([f"a={two[0]}", f"a={more}", f"b={two[1]}"], tmp_path / "out")
    assert made.runs["a"][0].dsc == pytest.approx(0.8)


def test_other_cases_are_refused_or_left_out_aloud(two, tmp_path):
    fewer = evaluation(tmp_path / "fewer", scores_of(0.7, cases=("a", "b")))
    with pytest.raises(UserError, match=r"only here or not everywhere: c; .*--intersection"):
        compare([two[0], fewer], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    made = compare([f"unet={two[0]}", f"fewer={fewer}"], tmp_path / "out", intersection=True)
    assert made.notes == ("Restricted to what all runs have; left out of unet: c.",)
    assert made.notes[0] in made.report.read_text()
    assert {score.case_id for score in made.runs["unet"]} == {"a", "b"}
    markdown, latex = made.markdown.read_text(), made.latex.read_text()
    assert f"\n\n- Distances by surface convention area.\n- {made.notes[0]}\n" in markdown
    assert latex.startswith(f"% Distances by surface convention area.\n% {made.notes[0]}\n\\begin")


def test_other_organs_are_named(two, tmp_path):
    more = evaluation(tmp_path / "more", scores_of(0.7, organs=("spleen", "pancreas")))
    with pytest.raises(UserError, match="pancreas of a, pancreas of b"):
        compare([two[0], more], tmp_path / "out")


def test_runs_without_a_case_in_common_are_refused(two, tmp_path):
    strangers = evaluation(tmp_path / "strangers", scores_of(0.7, cases=("x", "y")))
    with pytest.raises(UserError, match="expected cases that all runs have, found none"):
        compare([two[0], strangers], tmp_path / "out", intersection=True)


def test_scores_by_another_convention_are_refused(two, tmp_path):
    voxel = evaluation(tmp_path / "v", scores_of(0.7), surface_convention=SurfaceConvention.VOXEL)
    with pytest.raises(UserError, match="found surface convention voxel"):
        compare([two[0], voxel], tmp_path / "out")


def test_a_csv_is_counted_as_the_json_beside_it_says(two, tmp_path):
    voxel = evaluation(tmp_path / "v", scores_of(0.7), surface_convention=SurfaceConvention.VOXEL)
    with pytest.raises(UserError, match=r"found surface convention voxel; "):
        compare([f"{two[0]}/scores.csv", f"{voxel}/scores.csv"], tmp_path / "out")
    also = evaluation(tmp_path / "w", scores_of(0.8), surface_convention=SurfaceConvention.VOXEL)
    made = compare([f"{voxel}/scores.csv", f"{also}/scores.csv"], tmp_path / "out")
    assert made.notes == ()
    assert json.loads(made.comparison_json.read_text())["settings"]["surface_convention"] == "voxel"


def test_a_csv_alone_is_taken_for_the_usual_aloud(two, tmp_path):
    (tmp_path / "unet" / "evaluation" / "scores.json").unlink()
    made = compare([f"unet={two[0]}", f"gates={two[1]}"], tmp_path / "out")
    [note] = made.notes
    assert note.startswith("unet: scores.csv doesn't say how it was counted")
    assert note.endswith("taken for the usual: surface convention area.")
    assert note in unescape(made.report.read_text())
    more = shutil.copytree(two[0], tmp_path / "more")
    again = compare([f"unet={two[0]}", f"unet={more}", f"gates={two[1]}"], tmp_path / "twice")
    assert again.notes == (note, "unet is the average of 2 repeated runs, case by case.")
    voxel = evaluation(tmp_path / "v", scores_of(0.7), surface_convention=SurfaceConvention.VOXEL)
    with pytest.raises(
        UserError, match=r"found surface convention area, as scores.csv doesn't say otherwise"
    ):
        compare([voxel, two[0]], tmp_path / "again")


def test_another_truth_under_the_same_name_is_refused(two, tmp_path):
    other = [replace(score, truth_ml=score.truth_ml + 1) for score in scores_of(0.7)]
    with pytest.raises(UserError, match=r"spleen of a as in .* \(true volume 100 ml\), found 101 ml"):
        compare([two[0], evaluation(tmp_path / "other", other)], tmp_path / "out")


def test_what_an_evaluation_could_not_score_is_said(two, tmp_path):
    torn = evaluation(tmp_path / "torn", scores_of(0.7), failed=("z",), resampled=("a",))
    made = compare([f"unet={two[0]}", f"torn={torn}"], tmp_path / "out")
    assert made.notes == ("torn: could not be scored: z.", "torn: brought onto the truth's grid: a.")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda two: two[:1], "two runs or more"),
        (lambda two: [two[0], two[0]], "more than once"),
        (lambda two: [f"a={two[0]}", f"a={two[1]}"], "two runs or more"),
        (lambda two: [two[0], two[1] + "/missing"], "no such folder"),
        (lambda two: [two[0], two[1] + "/nothing"], "found neither"),
    ],
)
def test_what_cannot_be_compared_is_refused(two, tmp_path, change, words):
    (tmp_path / "attention" / "evaluation" / "nothing").mkdir()
    with pytest.raises(UserError, match=words):
        compare(change(two), tmp_path / "out")


def test_a_study_through_files_finds_what_was_put_in_and_nothing_else(tmp_path):
    """Three runs of 24 cases with missed organs; the third is better by two spreads in the spleen."""
    study = simulated_study(np.random.default_rng(21), {("third", "spleen"): 2.0})
    runs = [evaluation(tmp_path / run, scores) for run, scores in study.items()]
    made = compare(runs, tmp_path / "out")
    pairs = json.loads(made.comparison_json.read_text())["pairs"]
    with made.comparison_csv.open() as file:
        assert [float(row["p_holm"]) for row in csv.DictReader(file)] == pytest.approx(
            [pair["p_holm"] for pair in pairs], rel=1e-4
        )
    effects = {("first", "third", "spleen"), ("second", "third", "spleen")}
    for measure in ("dsc", "s2s_mm"):
        family = [pair for pair in pairs if pair["measure"] == measure]
        found = {(pair["first"], pair["second"], pair["organ"]) for pair in family if pair["p_holm"] < 0.05}
        assert len(family) == 9
        assert found == effects
    by_key = {run: {(score.organ, score.case_id): score for score in scores} for run, scores in study.items()}
    n_missed = 0
    for pair in family:  # of distances: a missed organ is worst, and has no part in the difference
        firsts, seconds = (
            np.array([by_key[run][pair["organ"], f"case{n}"].s2s_mm for n in range(24)], dtype=float)
            for run in (pair["first"], pair["second"])
        )
        both = ~np.isnan(firsts) & ~np.isnan(seconds)
        assert (pair["n"], pair["n_worst"]) == (both.sum(), (~both).sum())
        assert pair["difference"] == pytest.approx((seconds - firsts)[both].mean())
        assert pair["low"] < pair["difference"] < pair["high"]
        gains = np.nan_to_num(firsts, nan=99) - np.nan_to_num(seconds, nan=99)
        assert (pair["wins"], pair["ties"], pair["losses"]) == tuple(
            np.sum(np.sign(gains) == sign) for sign in (1, 0, -1)
        )
        n_missed += pair["n_worst"]
    assert n_missed > 9
