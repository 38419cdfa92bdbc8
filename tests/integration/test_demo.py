"""The demo's chain in miniature: the same code as ``ct-attn demo``, a smaller cohort and recipe."""

from __future__ import annotations

import json

import pytest

from ct_attn.demo import DemoSize, demo_recipe, run_demo
from ct_attn.errors import UserError
from ct_attn.manifest import read_manifest
from tests.cohorts import COARSE, tiny_recipe

SIZE = DemoSize(n_training=4, n_test=2, phantom=COARSE)


def small_demo(output, progress, seed=1):
    return run_demo(output, seed=seed, progress=progress, recipe=tiny_recipe(), size=SIZE)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    from rich.progress import Progress

    return small_demo(tmp_path_factory.mktemp("demo") / "demo", Progress(disable=True))


def test_the_demo_leaves_masks_scores_and_reports(made):
    assert len(list(made.masks.glob("*.nii.gz"))) == 2
    for evaluation in (made.evaluation, made.baseline):
        assert evaluation.scores_csv.is_file()
        assert evaluation.report.is_file()
        assert {score.organ for score in evaluation.scores} == {"pancreas", "spleen", "kidney"}


def test_the_guess_without_looking_finds_some_spleen(made):
    dsc = {summary.organ: summary.dsc.mean for summary in made.baseline.summaries}
    assert 0.1 < dsc["spleen"] < 0.9


def test_held_out_cases_share_no_seed_with_training(made):
    manifest = read_manifest(made.masks.parent / "cohort" / "manifest.json")
    digests = [case.image_digest for case in manifest.cases]
    assert len(set(digests)) == 6
    assert not {case.case_id for case in manifest.training} & {case.case_id for case in manifest.test}


def test_a_demo_run_again_keeps_what_is_done_and_gives_the_same_scores(made, silent):
    output = made.masks.parent
    cohort_made = (output / "cohort" / "manifest.json").stat().st_mtime_ns
    scores = made.evaluation.scores_csv.read_bytes()
    again = small_demo(output, silent)
    assert (output / "cohort" / "manifest.json").stat().st_mtime_ns == cohort_made
    assert again.evaluation.scores_csv.read_bytes() == scores


def test_the_same_seed_elsewhere_gives_the_same_scores_and_report(made, tmp_path, silent):
    other = small_demo(tmp_path / "other", silent)
    assert other.evaluation.scores_csv.read_bytes() == made.evaluation.scores_csv.read_bytes()
    assert other.evaluation.report.read_bytes() == made.evaluation.report.read_bytes()


def test_another_seed_in_the_same_folder_is_refused(made, silent):
    with pytest.raises(UserError, match="another -o"):
        small_demo(made.masks.parent, silent, seed=2)


def test_a_folder_with_other_things_is_refused(tmp_path, silent):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="another -o"):
        small_demo(tmp_path, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_recipe_that_travels_with_the_package_is_the_papers_network_made_narrow():
    network = json.loads(demo_recipe().network.model_dump_json())
    assert network["kind"] == "attention_unet"
    assert len(network["widths"]) == 5
