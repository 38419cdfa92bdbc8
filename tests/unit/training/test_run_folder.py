from __future__ import annotations

import copy
import json

import pytest

from ct_attn.errors import UserError
from ct_attn.training.run_folder import RunFolder, claim, unfinished
from tests.cohorts import tiny_recipe

RECORD = {"recipe": "sha256:r", "fold": 0}


@pytest.fixture
def run(tmp_path):
    return RunFolder(path=tmp_path / "run")


def begin(run, record=RECORD):
    """What a run that has finished an epoch has left."""
    run.path.mkdir()
    run.record.write_text(record if isinstance(record, str) else json.dumps(record))
    run.state.write_bytes(b"")


def test_every_file_of_a_run_has_a_place_of_its_own(run):
    names = [name for name, value in vars(RunFolder).items() if isinstance(value, property)]
    places = [getattr(run, name) for name in names]
    assert len(set(places)) == len(places) > 8
    assert {place.parent for place in places} == {run.path}


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_is_not_there_is_new(run, resume):
    claim(run, RECORD, resume=resume)


def test_prepared_cases_are_no_sign_of_a_run(run):
    run.cache.mkdir(parents=True)
    claim(run, RECORD, resume=False)
    (run.path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="expected a new or empty output folder"):
        claim(run, RECORD, resume=False)


def test_a_run_goes_on_only_when_told_to(run):
    begin(run)
    with pytest.raises(UserError, match="--resume"):
        claim(run, RECORD, resume=False)
    claim(run, RECORD, resume=True)


def test_a_run_of_which_only_the_last_state_but_one_is_left_goes_on(run):
    begin(run)
    run.state.rename(run.previous_state)
    claim(run, RECORD, resume=True)
    with pytest.raises(UserError, match="another fold"):
        claim(run, RECORD | {"fold": 1}, resume=True)


@pytest.mark.parametrize(
    ("now", "what"),
    [
        ({"recipe": "sha256:other", "fold": 0}, "another recipe"),
        ({"recipe": "sha256:other", "fold": 1}, "another fold, recipe"),
        ({"recipe": "sha256:r"}, "another fold"),
        (RECORD | {"processes": 2}, "another processes"),
    ],
)
def test_another_run_does_not_go_on_there_and_hears_what_differs(run, now, what):
    begin(run)
    with pytest.raises(UserError, match=what):
        claim(run, now, resume=True)


def test_what_stopped_before_its_first_state_begins_anew(run):
    begin(run)
    run.state.unlink()
    claim(run, {"recipe": "sha256:other"}, resume=True)


def test_a_record_of_before_devices_were_recorded_goes_on(run):
    begin(run)
    claim(run, RECORD | {"device": "cpu", "precision": "32-true"}, resume=True)


@pytest.mark.parametrize(
    ("there", "now", "what"),
    [
        ({"device": "cuda"}, {"device": "cpu"}, r"another device \(cuda; here cpu\)"),
        (
            {"torch": "2.5", "version": "1"},
            {"torch": "2.6", "version": "2"},
            r"torch, version \(2.5, 1; here",
        ),
    ],
)
def test_a_change_of_device_or_versions_is_said_with_both(run, there, now, what):
    begin(run, RECORD | there)
    with pytest.raises(UserError, match=what) as refused:
        claim(run, RECORD | now, resume=True)
    assert "the same versions of ct_attn and torch" in refused.value.remedy
    assert "kind of device" in refused.value.remedy


@pytest.mark.parametrize(
    ("n_epochs", "told"), [(None, None), (0, "0 of 4 epochs"), (3, "3 of 4 epochs"), (4, None)]
)
def test_a_run_is_finished_when_its_log_has_all_epochs(run, n_epochs, told):
    run.path.mkdir()
    if n_epochs is not None:
        run.log.write_text("epoch,loss\n" + "0,0.5\n" * n_epochs)
    assert unfinished(run, tiny_recipe()) == told


def test_an_early_stop_of_before_there_was_a_last_model_is_believed(run):
    run.path.mkdir()
    run.log.write_text("epoch,loss\n0,0.5\n")
    assert unfinished(run, tiny_recipe("training.early_stopping_epochs=2")) is None


def test_a_recipe_of_before_a_field_was_there_is_the_same_recipe(run):
    recipe = json.loads(tiny_recipe().model_dump_json())
    earlier = copy.deepcopy(recipe)
    del earlier["training"]["patch_centres"]
    begin(run, RECORD | {"recipe": json.dumps(earlier)})
    claim(run, RECORD | {"recipe": json.dumps(recipe)}, resume=True)
    recipe["training"]["patch_centres"] = "anywhere"
    with pytest.raises(UserError, match="another recipe"):
        claim(run, RECORD | {"recipe": json.dumps(recipe)}, resume=True)


@pytest.mark.parametrize("text", ["{torn", "[1, 2]"])
def test_a_record_that_is_none_is_one_line(run, text):
    begin(run, text)
    with pytest.raises(UserError, match=r"run\.json: expected the record of the run to go on with"):
        claim(run, RECORD, resume=True)
