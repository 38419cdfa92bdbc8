"""What validation cases teach about a model, from a manifest to the files beside the model."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest

from ct_attn.calibrate import REPORT_NAME, calibrate
from ct_attn.errors import UserError
from ct_attn.inference.options import InferenceOptions, Prediction
from ct_attn.labels import DISK_SCHEME, PAPER_SCHEME
from ct_attn.manifest import Case, Manifest, file_digest, write_manifest
from ct_attn.prediction.filtering import OrganFilter
from ct_attn.prediction.models import read_model
from ct_attn.prediction.postprocessing import FILE_NAME, read_postprocessing
from ct_attn.scan_io import nifti
from ct_attn.volume import Grid, Mask, Volume
from tests.models import make_tiny_model

GRID = Grid(shape=(24, 20, 12), affine=np.diag([-4.0, -4.0, 5.0, 1.0]))

#: In fold 0, so that a model of fold 0 has not seen them; the others train it.
HELD_OUT = ("a", "b", "c")


def truth() -> np.ndarray:
    """Pancreas, spleen and both kidneys in the codes of files."""
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[10:14, 12:16, 4:8] = 1
    labels[18:22, 14:18, 4:9] = 2
    labels[2:6, 4:10, 3:9] = 3
    labels[16:20, 4:10, 3:9] = 4
    return labels


def foreseen() -> np.ndarray:
    """What the network says: the truth in its own codes, and a piece of spleen where there is none."""
    labels = np.array([0, 1, 2, 3, 3], dtype=np.uint8)[truth()]
    labels[0:2, 0:2, 0:2] = 2
    return labels


class Foresees:
    """A predictor that gives a mask which is known, less sure from scan to scan."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def run(self, volume: Volume) -> Prediction:
        self.seen.append(int(volume.hu.max()))
        sure = 1 - 0.1 * len(self.seen)
        confidence = {"pancreas": nan, "spleen": sure, "kidney": sure}
        return Prediction(mask=Mask(labels=foreseen(), grid=volume.grid), confidence=confidence)


def write_case(folder, name, *, fold, hu, labelled=("pancreas", "spleen", "left_kidney", "right_kidney")):
    values = np.full(GRID.shape, hu, dtype=np.int16)
    nifti.write_volume(Volume(hu=values, grid=GRID), folder / f"{name}.nii.gz")
    nifti.write_mask(Mask(labels=truth(), grid=GRID), folder / f"{name}_label.nii.gz", scheme=DISK_SCHEME)
    return Case(
        case_id=name,
        patient_id=name,
        image=f"{name}.nii.gz",
        label=f"{name}_label.nii.gz",
        labelled_organs=labelled,
        fold=fold,
    )


@pytest.fixture
def manifest(tmp_path):
    """Held-out scans of 100 to 102 HU, training scans of 40 and 60."""
    cases = [write_case(tmp_path, name, fold=0, hu=100 + at) for at, name in enumerate(HELD_OUT[:-1])]
    cases.append(write_case(tmp_path, "c", fold=0, hu=102, labelled=("pancreas", "left_kidney")))
    cases += [write_case(tmp_path, f"seen{hu}", fold=1, hu=hu) for hu in (40, 60)]
    labels = {"0": "background"} | {str(code): name for name, code in DISK_SCHEME.codes.items()}
    path = tmp_path / "manifest.json"
    write_manifest(Manifest(name="m", source="s", licence="l", labels=labels, training=tuple(cases)), path)
    return path


@pytest.fixture
def model(tmp_path, manifest):
    return make_tiny_model(tmp_path / "model", fold=0, manifest_digest=file_digest(manifest))


@pytest.fixture
def predictor(monkeypatch):
    made = Foresees()
    monkeypatch.setattr("ct_attn.calibrate.Predictor.load", lambda model, inference: made)
    return made


def test_the_cases_that_were_held_out_are_predicted_and_no_others(model, manifest, predictor, silent):
    calibrate(model, manifest, progress=silent)
    assert predictor.seen == [100, 101, 102]


def test_what_was_learnt_is_read_again_with_the_model(model, manifest, predictor, silent):
    done = calibrate(model, manifest, progress=silent)
    facts = read_model(model)
    assert facts.postprocessing == done.learnt == read_postprocessing(model, facts.used.digest)
    assert done.path == model / FILE_NAME
    assert done.learnt.manifest_digest == file_digest(manifest)
    assert (done.learnt.fold, done.learnt.n_cases) == (0, 3)


def test_a_part_that_is_never_right_is_dropped_and_what_is_right_stays(model, manifest, predictor, silent):
    filters = calibrate(model, manifest, progress=silent).learnt.filters
    assert filters["spleen"].filter == OrganFilter(keep_largest=True)
    n_right, n_wrong = 4 * 4 * 5, 2 * 2 * 2
    assert filters["spleen"].dsc_without == pytest.approx(2 * n_right / (2 * n_right + n_wrong))
    assert filters["spleen"].dsc_with == 1
    assert filters["kidney"].filter == OrganFilter()  # of left and right in the files
    assert filters["kidney"].dsc_without == 1


def test_organs_that_a_case_does_not_label_are_not_judged_there(model, manifest, predictor, silent):
    learnt = calibrate(model, manifest, progress=silent).learnt
    counts = {organ: choice.n_cases for organ, choice in learnt.filters.items()}
    assert counts == {"pancreas": 3, "spleen": 2, "kidney": 2}  # case c labels one kidney of the two


def test_confidence_is_held_against_the_dsc_of_the_filtered_mask(model, manifest, predictor, silent):
    calibration = calibrate(model, manifest, progress=silent).learnt.calibration
    assert calibration["spleen"].points == ((pytest.approx(0.8), 1.0), (pytest.approx(0.9), 1.0))
    assert calibration["pancreas"].points == ()  # it was computed once: of that nothing is learnt


def test_ranges_are_those_of_the_training_scans(model, manifest, predictor, silent):
    ranges = calibrate(model, manifest, progress=silent).learnt.training
    assert ranges.n_cases == 2
    assert [(one.low, one.high) for one in ranges.hu] == [(40, 60)] * 3
    assert [one.low for one in ranges.spacing_mm] == pytest.approx([4, 4, 5])


def test_the_report_tells_of_every_organ_and_of_the_model(model, manifest, predictor, silent):
    done = calibrate(model, manifest, progress=silent)
    assert done.report == model / REPORT_NAME
    page = done.report.read_text()
    for text in (*PAPER_SCHEME.names, read_model(model).used.digest, "Calibration of tiny", "largest"):
        assert text in page


def test_the_options_asked_for_are_those_of_the_predictions(model, manifest, monkeypatch, silent):
    asked = []

    def load(folder, inference):
        asked.append(inference)
        return Foresees()

    monkeypatch.setattr("ct_attn.calibrate.Predictor.load", load)
    calibrate(model, manifest, progress=silent, inference=InferenceOptions(mirroring=True))
    assert asked == [InferenceOptions(mirroring=True)]


def test_cases_of_the_training_are_refused_and_nothing_is_written(model, manifest, predictor, silent):
    with pytest.raises(UserError, match="--fold 1: expected fold 0, which was held out"):
        calibrate(model, manifest, progress=silent, fold=1)
    assert not predictor.seen
    assert [path.name for path in model.iterdir()] == ["model.safetensors"]


def test_a_model_of_another_manifest_needs_the_fold_to_be_named(tmp_path, manifest, predictor, silent):
    stranger = make_tiny_model(tmp_path / "stranger", fold=0, manifest_digest="sha256:other")
    with pytest.raises(UserError, match="expected a model trained on this manifest, or --fold"):
        calibrate(stranger, manifest, progress=silent)
    assert calibrate(stranger, manifest, progress=silent, fold=1).learnt.fold == 1
    assert predictor.seen == [40, 60]


def test_a_label_on_another_grid_is_refused(tmp_path, model, manifest, predictor, silent):
    moved = Grid(shape=GRID.shape, affine=np.diag([-4.0, -4.0, 6.0, 1.0]))
    nifti.write_mask(Mask(labels=truth(), grid=moved), tmp_path / "b_label.nii.gz", scheme=DISK_SCHEME)
    with pytest.raises(UserError, match=r"b_label\.nii\.gz"):
        calibrate(model, manifest, progress=silent)
    assert not (model / FILE_NAME).exists()
