from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ct_attn.errors import UserError
from ct_attn.prediction import cluster
from ct_attn.prediction.cases import find_cases
from ct_attn.prediction.cluster import Failed, Job, carry_out, run_on_cluster
from ct_attn.prediction.record import PredictionRecord, read_failure
from ct_attn.prediction.request import Request, resolve
from tests.models import make_tiny_model, make_tiny_scans


@pytest.fixture
def jobs(tmp_path):
    model = make_tiny_model(tmp_path / "model")
    scans = make_tiny_scans(tmp_path / "scans", "one", "two")
    resolved = resolve(Request(models=(model,)))
    return [
        Job(case=case, resolved=resolved, version=cluster.__version__, threads=None)
        for case in find_cases([scans], tmp_path / "masks")
    ]


def test_a_worker_loads_its_models_once_and_answers_with_records(jobs, monkeypatch):
    from ct_attn.inference.predictor import Predictor

    loaded, load = [], Predictor.load
    monkeypatch.setattr(Predictor, "load", lambda *given: loaded.append(given) or load(*given))
    monkeypatch.setattr(cluster, "_WORKER", cluster._Worker())
    outcomes = [carry_out(job) for job in jobs]
    assert [type(outcome) for outcome in outcomes] == [PredictionRecord] * 2
    assert len(loaded) == 1


def test_a_worker_answers_with_the_cause_when_a_case_fails(jobs):
    Path(jobs[0].case.scan.path).write_bytes(b"torn")
    outcome = carry_out(jobs[0])
    assert isinstance(outcome, Failed)
    assert "one.nii.gz" in outcome.message
    assert "one.nii.gz" in read_failure(jobs[0].case.files).cause


def test_a_worker_of_another_version_is_told(jobs):
    outcome = carry_out(replace(jobs[0], version="0.0"))
    assert "install the same version everywhere" in outcome.message
    assert not jobs[0].case.files.mask.exists()


@pytest.mark.parametrize(
    ("address", "word"),
    [("nonsense", r"local, slurm or tcp://HOST:PORT"), ("tcp://127.0.0.1:1", "a scheduler that answers")],
)
def test_a_cluster_that_is_not_there_is_one_line(jobs, address, word, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 2)
    if "://" in address:
        pytest.importorskip("distributed")
    with pytest.raises(UserError, match=word):
        list(run_on_cluster([jobs[0].case], jobs[0].resolved, cluster=address, workers=1))


def test_without_dask_the_extra_is_named(jobs, monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'ct-attn\[cluster\]'"):
        list(run_on_cluster([], jobs[0].resolved, cluster="local", workers=1))
