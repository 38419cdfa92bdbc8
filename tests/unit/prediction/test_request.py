from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ct_attn.errors import UserError
from ct_attn.inference.options import InferenceOptions
from ct_attn.prediction.filtering import OrganFilter
from ct_attn.prediction.models import read_model
from ct_attn.prediction.postprocessing import write_postprocessing
from ct_attn.prediction.request import Outputs, Request, resolve
from ct_attn.scan_io.options import ReadingOptions
from tests.models import make_tiny_model
from tests.unit.prediction.test_calibration import learnt


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def calibrated(tmp_path):
    folder = make_tiny_model(tmp_path / "calibrated")
    write_postprocessing(
        learnt(read_model(folder).used.digest, spleen=OrganFilter(keep_largest=True)), folder
    )
    return folder


@pytest.fixture
def plain(model):
    return Request(models=(model,))


SAME = {
    "device": {"inference": InferenceOptions(device="cpu")},
    "backend": {"inference": InferenceOptions(backend="torch")},
    "memory": {"inference": InferenceOptions(memory_bytes=1 << 30)},
    "compiled": {"inference": InferenceOptions(compile=True)},
    "largest header": {"reading": ReadingOptions(max_voxels=10**9)},
    "more outputs": {"outputs": Outputs(preview=True, statistics=True, probabilities=True)},
    "no filter by name": {"filter": "off"},
}
OTHER = {
    "precision": {"inference": InferenceOptions(precision="bf16")},
    "fast": {"inference": InferenceOptions(fast=True)},
    "mirrored": {"inference": InferenceOptions(mirroring=True)},
    "windows": {"inference": InferenceOptions(windows="trained")},
    "everything": {"inference": InferenceOptions(body_mask=False)},
    "spacing": {"reading": ReadingOptions(spacing_mm=(1.0, 1.0, 2.0))},
    "organs": {"outputs": Outputs(organs=("spleen",))},
    "filter": {"filter": "largest"},
}


@pytest.mark.parametrize("fields", SAME.values(), ids=SAME)
def test_where_and_how_fast_a_mask_is_made_is_no_setting(plain, fields):
    assert resolve(replace(plain, **fields)).settings_digest == resolve(plain).settings_digest


@pytest.mark.parametrize("fields", OTHER.values(), ids=OTHER)
def test_what_decides_a_mask_is_a_setting(plain, fields):
    assert resolve(replace(plain, **fields)).settings_digest != resolve(plain).settings_digest


def test_settings_are_plain_json(plain):
    settings = resolve(replace(plain, reading=ReadingOptions(spacing_mm=(1.0, 1.0, 2.0)))).settings
    assert json.loads(json.dumps(settings)) == settings


def test_organs_asked_for_keep_their_codes(plain):
    found = resolve(replace(plain, outputs=Outputs(organs=("kidney", "pancreas"))))
    assert found.scheme.codes == {"pancreas": 1, "kidney": 3}
    with pytest.raises(UserError, match="--organs liver"):
        resolve(replace(plain, outputs=Outputs(organs=("liver",))))


def test_what_was_learnt_is_applied_unless_another_filter_is_named(calibrated):
    request = Request(models=(calibrated,))
    assert resolve(request).filters == {"spleen": OrganFilter(keep_largest=True)}
    assert not any(one.does_anything for one in resolve(replace(request, filter="off")).filters.values())
    assert resolve(replace(request, filter="spleen=2ml")).filters["spleen"] == OrganFilter(minimum_ml=2)


def test_models_of_other_organs_are_not_averaged(model, tmp_path):
    other = make_tiny_model(tmp_path, "targets={spleen: [spleen]}")
    with pytest.raises(UserError, match="expected a model for pancreas, spleen, kidney, as the first -m"):
        resolve(Request(models=(model, other)))


def test_a_confidence_is_calibrated_for_one_model_that_was_calibrated(model, calibrated):
    assert resolve(Request(models=(calibrated,))).uncalibrated is None
    for request, words in (
        (Request(models=(model,)), "ct-attn calibrate -m MODEL --data MANIFEST"),
        (Request(models=(calibrated,), filter="off"), "--filter off leaves aside"),
        (Request(models=(calibrated, calibrated)), "of one model, not of a mean"),
    ):
        assert words in resolve(request).uncalibrated
