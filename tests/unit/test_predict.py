"""Where masks and records go, what is skipped, and what stops a prediction."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from ct_attn import __version__
from ct_attn.errors import UserError
from ct_attn.manifest import read_manifest, write_manifest
from ct_attn.predict import Cohort, predict, status
from ct_attn.prediction import cluster
from ct_attn.prediction.cases import State, find_cases
from ct_attn.prediction.filtering import OrganFilter
from ct_attn.prediction.models import read_model
from ct_attn.prediction.postprocessing import write_postprocessing
from ct_attn.prediction.record import OutputFiles, read_record
from ct_attn.prediction.request import Outputs, Request, resolve
from ct_attn.scan_io import nifti
from ct_attn.scan_io.options import ReadingOptions
from ct_attn.volume import Grid, Volume
from tests import downloads
from tests.models import make_tiny_model, make_tiny_scans
from tests.unit.prediction.test_calibration import learnt

LPS = np.diag([-6.0, -6.0, 5.0, 1.0])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture
def request_(model):
    return Request(models=(model,))


@pytest.fixture
def scans(tmp_path):
    return make_tiny_scans(tmp_path / "scans", "one", "two")


@pytest.fixture
def run(request_, silent, tmp_path):
    """Predict into ``masks``, with the fields of the request that are given."""

    def run(*sources, output=tmp_path / "masks", overwrite=False, cohort=None, on_note=None, **fields):
        heard = on_note if on_note is not None else []
        return predict(
            replace(request_, **fields),
            sources,
            output,
            progress=silent,
            overwrite=overwrite,
            cohort=cohort,
            on_note=lambda name, note: heard.append((name, note)),
        )

    return run


def record(mask):
    return read_record(OutputFiles(mask=mask))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def spoil(path):
    path.write_bytes(b"torn")


def test_a_folder_gives_a_mask_and_a_record_named_like_each_scan(run, scans, tmp_path):
    made = run(scans)
    assert names(tmp_path / "masks") == ["one.json", "one.nii.gz", "two.json", "two.nii.gz"]
    assert not made.failures
    for mask in made.masks:
        assert nifti.read_mask(mask)[0].grid.is_same_as(nifti.read_grid(scans / mask.name))


def test_one_scan_goes_into_a_file_or_a_folder(run, scans, tmp_path):
    one = scans / "one.nii.gz"
    as_file = run(one, output=tmp_path / "m.nii").masks
    in_folder = run(one, output=tmp_path / "folder").masks
    assert [path.relative_to(tmp_path).as_posix() for path in as_file + in_folder] == [
        "m.nii",
        "folder/one.nii.gz",
    ]
    assert np.array_equal(nifti.read_mask(as_file[0])[0].labels, nifti.read_mask(in_folder[0])[0].labels)


def test_many_scans_do_not_go_into_one_file(run, scans, tmp_path):
    with pytest.raises(UserError, match="give a folder to -o"):
        run(scans, output=tmp_path / "m.nii.gz")


def test_several_sources_are_taken_together(run, scans, tmp_path):
    other = make_tiny_scans(tmp_path / "other", "three")
    assert [mask.name for mask in run(scans, other / "three.nii.gz").masks] == [
        "one.nii.gz",
        "three.nii.gz",
        "two.nii.gz",
    ]


def test_two_scans_of_one_name_are_refused(run, scans, tmp_path):
    other = make_tiny_scans(tmp_path / "other", "one")
    with pytest.raises(UserError, match="a second one named one"):
        run(scans, other)
    assert not (tmp_path / "masks").exists()


def test_a_record_tells_from_what_and_by_what_and_nothing_of_who_and_where(run, scans, model, tmp_path):
    mask = run(scans / "one.nii.gz").masks[0]
    written = record(mask)
    assert written.models[0].recipe == "tiny"
    assert written.input.shape == (20, 18, 9)
    assert written.labels == {"pancreas": 1, "spleen": 2, "kidney": 3}
    assert {"reading", "writing"} <= set(written.seconds)
    assert written.versions["ct_attn"]
    text = mask.with_name("one.json").read_text()
    assert str(tmp_path) not in text
    assert str(model) not in text


def test_paths_are_cut_off_what_is_noted_of_a_scan(run, tmp_path):
    private = make_tiny_scans(tmp_path / "Jane Doe", "one", "two")
    spoil(private / "two.nii.gz")
    made = run(private)
    assert "Jane Doe" in made.failures[0]
    assert "Jane Doe" not in (tmp_path / "masks" / "two.failed.json").read_text()
    assert "two.nii.gz" in (tmp_path / "masks" / "two.failed.json").read_text()


def test_what_is_done_is_not_done_again(run, scans):
    before = {mask: mask.stat().st_mtime_ns for mask in run(scans).masks}
    again = run(scans)
    assert not again.masks
    assert {mask: mask.stat().st_mtime_ns for mask in again.skipped} == before


def test_all_is_done_again_when_asked(run, scans):
    run(scans)
    assert len(run(scans, overwrite=True).masks) == 2


def test_another_device_or_memory_is_no_reason_to_predict_again(run, scans, request_):
    run(scans)
    elsewhere = replace(request_.inference, device="cpu", memory_bytes=2**31)
    assert len(run(scans, inference=elsewhere).skipped) == 2


def test_a_changed_scan_is_predicted_again_and_said(run, scans):
    run(scans)
    make_tiny_scans(scans, "two", "one")  # the other way round: other voxels
    heard = []
    assert len(run(scans, on_note=heard).masks) == 2
    assert ("one", "predicted again: the scan was changed since") in heard


def test_a_scan_that_was_only_copied_is_still_done(run, scans):
    run(scans)
    content = (scans / "one.nii.gz").read_bytes()
    (scans / "one.nii.gz").unlink()
    (scans / "one.nii.gz").write_bytes(content)
    assert len(run(scans).skipped) == 2


def test_masks_of_another_model_stay_unless_asked(run, scans, tmp_path):
    run(scans)
    other = make_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"made by another model \(tiny\) \(and 1 more\).*--overwrite"):
        run(scans, models=(other,))
    assert len(run(scans, models=(other,), overwrite=True).masks) == 2


def test_masks_of_other_settings_stay_unless_asked(run, scans):
    run(scans)
    with pytest.raises(UserError, match=r"other settings \(reading\)"):
        run(scans, reading=ReadingOptions(rescale=(1, -5)))


def test_a_mask_changed_by_hand_stays_unless_asked(run, scans, tmp_path):
    run(scans)
    mask, scheme = nifti.read_mask(tmp_path / "masks" / "one.nii.gz")
    mask.labels[0, 0, 0] = 1 - min(mask.labels[0, 0, 0], 1)
    nifti.write_mask(mask, tmp_path / "masks" / "one.nii.gz", scheme=scheme)
    with pytest.raises(UserError, match="changed after it was written"):
        run(scans)


def test_a_mask_without_a_record_stays_unless_asked(run, scans, tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "one.nii.gz").write_text("mine")
    with pytest.raises(UserError, match="a mask without a record"):
        run(scans)
    assert names(tmp_path / "masks") == ["one.nii.gz"]
    assert len(run(scans, overwrite=True).masks) == 2


def test_what_a_killed_process_left_is_made_again(run, scans, tmp_path):
    run(scans)
    masks = tmp_path / "masks"
    (masks / "one.json").unlink()  # as between mask and record
    (masks / ".unfinished-one").touch()
    (masks / ".partial-1-one.nii.gz").write_text("torn")
    assert [one.state for one in status([scans], masks, progress=_silent())] == [State.UNFINISHED, State.DONE]
    made = run(scans)
    assert [mask.name for mask in made.masks] == ["one.nii.gz"]
    assert names(masks) == ["one.json", "one.nii.gz", "two.json", "two.nii.gz"]


def _silent():
    from rich.progress import Progress

    return Progress(disable=True)


def test_a_scan_is_never_overwritten_by_its_mask(run, scans):
    before = (scans / "one.nii.gz").read_bytes()
    with pytest.raises(UserError, match="choose another -o"):
        run(scans / "one.nii.gz", output=scans, overwrite=True)
    assert (scans / "one.nii.gz").read_bytes() == before


def test_a_scan_that_fails_does_not_stop_the_others_and_its_cause_is_kept_until_it_is_mended(
    run, scans, tmp_path
):
    whole = (scans / "one.nii.gz").read_bytes()
    spoil(scans / "one.nii.gz")
    made = run(scans)
    assert [mask.name for mask in made.masks] == ["two.nii.gz"]
    assert len(made.failures) == 1
    assert "one.nii.gz" in made.failures[0]
    kept = json.loads((tmp_path / "masks" / "one.failed.json").read_text())
    assert "one.nii.gz: expected" in kept["cause"]
    (scans / "one.nii.gz").write_bytes(whole)
    assert [mask.name for mask in run(scans).masks] == ["one.nii.gz"]
    assert names(tmp_path / "masks") == ["one.json", "one.nii.gz", "two.json", "two.nii.gz"]


def test_a_defect_in_one_case_does_not_stop_the_others(run, scans, monkeypatch):
    from ct_attn.prediction import stages

    sound = stages.filter_mask

    def broken(mask, scheme, filters, calls=[]):  # noqa: B006 - counts over calls
        calls.append(mask)
        if len(calls) == 1:
            raise RuntimeError("a defect")
        return sound(mask, scheme, filters)

    monkeypatch.setattr(stages, "filter_mask", broken)
    made = run(scans)
    assert made.failures[0].endswith("RuntimeError: a defect")
    assert [mask.name for mask in made.masks] == ["two.nii.gz"]


def test_the_only_scan_of_a_run_raises_what_is_wrong_and_leaves_nothing(run, scans, tmp_path):
    spoil(scans / "one.nii.gz")
    with pytest.raises(UserError, match=r"one\.nii\.gz"):
        run(scans / "one.nii.gz")
    assert not (tmp_path / "masks").exists()


def test_attention_maps_go_into_a_folder_beside_the_mask(run, scans, tmp_path):
    run(scans / "one.nii.gz", output=tmp_path / "m.nii.gz", outputs=Outputs(attention=True))
    maps = sorted((tmp_path / "m_attention").iterdir())
    assert [path.name for path in maps] == ["level1.nii.gz"]
    alpha = nifti.read_volume(maps[0])
    assert alpha.grid.is_same_as(nifti.read_grid(scans / "one.nii.gz"))
    assert 0 < alpha.hu.min() <= alpha.hu.max() < 1


def test_a_picture_of_the_gates_lies_beside_the_mask_and_is_made_when_it_lacks(run, scans, tmp_path):
    one, out = scans / "one.nii.gz", tmp_path / "m.nii.gz"
    run(one, output=out)
    heard = []
    made = run(one, output=out, outputs=Outputs(features=True), on_note=heard)
    assert heard == [("m", "predicted again: without features")]
    assert (tmp_path / "m_features.png").read_bytes().startswith(b"\x89PNG")
    assert "features" in record(made.masks[0]).outputs
    assert "features" in record(made.masks[0]).seconds
    assert run(one, output=out, outputs=Outputs(features=True)).skipped == (out,)
    assert record(run(one, output=out, overwrite=True).masks[0]).outputs.keys() == {"mask"}
    assert not (tmp_path / "m_features.png").exists()


@pytest.mark.parametrize("outputs", [Outputs(attention=True), Outputs(features=True)])
def test_gates_of_a_network_without_any_are_refused_before_anything_is_predicted(
    run, scans, tmp_path, outputs
):
    plain = make_tiny_model(tmp_path / "plain", "network.kind=unet")
    with pytest.raises(UserError, match="expected a network with attention gates, found kind unet"):
        run(scans, models=(plain,), outputs=outputs)
    assert not (tmp_path / "masks").exists()


def test_probabilities_lie_on_the_scans_grid_and_say_what_the_mask_says(run, scans, tmp_path):
    run(scans / "one.nii.gz", output=tmp_path / "m.nii.gz", outputs=Outputs(probabilities=True))
    mask, scheme = nifti.read_mask(tmp_path / "m.nii.gz")
    likely = [nifti.read_volume(tmp_path / "m_probabilities" / f"{name}.nii.gz") for name in scheme.names]
    assert likely[0].grid.is_same_as(mask.grid)
    rest = 1 - sum(volume.hu for volume in likely)
    stacked = np.stack([rest, *(volume.hu for volume in likely)])
    sure = np.diff(np.sort(stacked, axis=0)[-2:], axis=0)[0] > 0.01  # where rounding can't decide
    assert sure.mean() > 0.3
    assert np.array_equal(stacked.argmax(axis=0)[sure], mask.labels[sure])


def test_only_the_organs_asked_for_are_in_the_mask(run, scans, tmp_path):
    whole = nifti.read_mask(run(scans / "one.nii.gz", output=tmp_path / "all.nii.gz").masks[0])[0]
    outputs = Outputs(organs=("kidney", "pancreas"), probabilities=True, statistics=True)
    mask, scheme = nifti.read_mask(
        run(scans / "one.nii.gz", output=tmp_path / "m.nii.gz", outputs=outputs).masks[0]
    )
    assert scheme.codes == {"pancreas": 1, "kidney": 3}
    assert np.array_equal(mask.labels, np.where(whole.labels == 2, 0, whole.labels))
    assert names(tmp_path / "m_probabilities") == ["kidney.nii.gz", "pancreas.nii.gz"]
    assert {organ.organ for organ in record(tmp_path / "m.nii.gz").statistics} == {
        "pancreas", "kidney", "left_kidney", "right_kidney",
    }  # fmt: skip


def test_an_organ_the_model_lacks_is_refused(run, scans):
    with pytest.raises(UserError, match="--organs liver: expected organs the model predicts"):
        run(scans, outputs=Outputs(organs=("liver",)))


def test_statistics_of_all_cases_come_in_one_table_even_those_of_earlier_runs(run, scans, tmp_path):
    outputs = Outputs(statistics=True)
    run(scans / "one.nii.gz", outputs=outputs)
    made = run(scans, outputs=outputs)
    assert [mask.name for mask in made.masks] == ["two.nii.gz"]
    assert [path.name for path in made.statistics] == ["statistics.csv", "statistics.json"]
    cases = json.loads((tmp_path / "masks" / "statistics.json").read_text())["cases"]
    assert sorted(cases) == ["one", "two"]
    mask, scheme = nifti.read_mask(tmp_path / "masks" / "two.nii.gz")
    for organ in cases["two"]:
        if organ["organ"] in scheme.codes:
            assert organ["voxels"] == (mask.labels == scheme.codes[organ["organ"]]).sum()


def test_an_output_that_is_lacking_is_made_and_said(run, scans, tmp_path):
    run(scans / "one.nii.gz")
    heard = []
    assert run(scans / "one.nii.gz", outputs=Outputs(preview=True), on_note=heard).masks
    assert ("one", "predicted again: without preview") in heard
    assert (tmp_path / "masks" / "one.png").is_file()
    assert run(scans / "one.nii.gz").skipped  # a preview too many is no fault


def test_files_of_a_run_that_asked_for_more_are_removed(run, scans, tmp_path):
    run(scans / "one.nii.gz", outputs=Outputs(preview=True))
    run(scans / "one.nii.gz", overwrite=True)
    assert names(tmp_path / "masks") == ["one.json", "one.nii.gz"]


def test_a_filter_is_applied_and_written_down(run, scans, tmp_path):
    raw = nifti.read_mask(run(scans / "one.nii.gz", output=tmp_path / "raw.nii.gz").masks[0])[0]
    kept = run(scans / "one.nii.gz", output=tmp_path / "m.nii.gz", filter="largest").masks[0]
    filtered = nifti.read_mask(kept)[0]
    removed_ml = np.count_nonzero(raw.labels != filtered.labels) * raw.grid.voxel_volume_mm3 / 1000
    effects = record(kept).filtered
    assert removed_ml > 0
    assert sum(effect.removed_ml for effect in effects.values()) == pytest.approx(removed_ml)
    assert {effect.filter for effect in effects.values()} == {"largest"}


def test_an_uncalibrated_confidence_is_called_so_in_every_record_and_once_a_run_that_asks_for_it(run, scans):
    heard = []
    run(scans, on_note=heard)
    assert not any("uncalibrated" in note for _, note in heard)
    statistics = Outputs(statistics=True)
    made = run(scans, outputs=statistics, on_note=heard)
    said = [(name, note) for name, note in heard if "uncalibrated" in note]
    assert [name for name, _ in said] == [""]
    assert "ct-attn calibrate -m MODEL --data MANIFEST" in said[0][1]
    assert {record(mask).uncalibrated for mask in made.masks} == {said[0][1]}
    run(scans, outputs=statistics, on_note=heard)  # all is done
    assert len([note for _, note in heard if "uncalibrated" in note]) == 1


def test_a_calibrated_confidence_is_not_called_uncalibrated(run, scans, tmp_path):
    trained = make_tiny_model(tmp_path / "calibrated")
    known = learnt(read_model(trained).used.digest, spleen=OrganFilter())
    write_postprocessing(known, trained)
    scan = scans / "one.nii.gz"
    heard = []
    made = run(
        scan,
        models=(trained,),
        output=tmp_path / "a.nii.gz",
        outputs=Outputs(statistics=True),
        on_note=heard,
    ).masks
    assert record(made[0]).uncalibrated is None
    assert not any("uncalibrated" in note for _, note in heard)
    raw = run(scan, models=(trained,), output=tmp_path / "b.nii.gz", filter="off").masks
    assert "--filter off" in record(raw[0]).uncalibrated
    mean = run(scan, models=(trained, trained), output=tmp_path / "c.nii.gz").masks
    assert "not of a mean" in record(mean[0]).uncalibrated


def test_parts_of_a_cohort_share_all_cases_between_them(run, tmp_path):
    scans = make_tiny_scans(tmp_path / "many", "a", "b", "c", "d", "e")
    parts = [run(scans, cohort=Cohort(n_parts=2, part=part)).masks for part in (0, 1)]
    assert [[mask.name[0] for mask in part] for part in parts] == [["a", "c", "e"], ["b", "d"]]
    with pytest.raises(UserError, match="0 to 1 for --num-parts 2"):
        run(scans, cohort=Cohort(n_parts=2, part=2))


def test_an_output_that_is_a_file_is_refused(run, scans, tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(UserError, match="choose another -o"):
        run(scans, output=tmp_path / "taken")


def test_nothing_to_do_needs_no_network(run, scans, monkeypatch):
    run(scans)
    monkeypatch.setattr("ct_attn.inference.predictor.Predictor.load", None)
    assert len(run(scans).skipped) == 2


def test_a_scan_that_claims_the_file_of_another_is_refused(run, tmp_path):
    scans = make_tiny_scans(tmp_path / "scans", "one", "one.failed")
    with pytest.raises(UserError, match="outputs of different names"):
        run(scans)


def test_status_tells_each_case_apart(run, scans, model, tmp_path, silent):
    masks = tmp_path / "masks"

    def states(**more):
        return {
            one.case.name: (one.state, one.reason) for one in status([scans], masks, progress=silent, **more)
        }

    assert states()["one"] == (State.MISSING, "")
    spoil(scans / "two.nii.gz")
    run(scans)
    assert states()["one"] == (State.DONE, "")
    assert states()["two"][0] == State.FAILED
    assert "two.nii.gz: expected" in states()["two"][1]
    other = make_tiny_model(tmp_path / "other", seed=1)
    assert states(models=[model])["one"][0] == State.DONE
    assert states(models=[other])["one"] == (State.OTHER_MODEL, "made by another model (tiny)")
    grid = nifti.read_grid(scans / "one.nii.gz")
    nifti.write_volume(Volume(hu=np.zeros(grid.shape, np.int16), grid=grid), scans / "one.nii.gz")
    assert states()["one"][0] == State.OTHER_SCAN


NAMED = "Mueller_Hans_4711"


@pytest.fixture
def dicom_scans(tmp_path):
    """Two DICOM scans, of which one folder says whose it is."""
    for name in ("abdomen", NAMED):
        volume = Volume(hu=np.zeros((8, 8, 6), np.int16), grid=Grid(shape=(8, 8, 6), affine=LPS))
        fields = {"PatientName": "MUELLER^HANS", "PatientID": "4711", "PatientBirthDate": "19500103"}
        downloads.write_dicom(tmp_path / "dicom" / name, volume, fields=fields)
    return tmp_path / "dicom"


def assert_nothing_tells(*texts, folder):
    written = [path.name.encode() + path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    for secret in ("mueller", "hans", "4711"):
        assert not any(secret in text.lower() for text in texts)
        assert not any(secret.encode() in content.lower() for content in written)


def test_a_dicom_folder_that_tells_whose_scan_it_is_names_no_output(run, dicom_scans, tmp_path, silent):
    masks, heard = tmp_path / "masks", []
    made = run(dicom_scans, on_note=heard)
    assert names(masks) == ["abdomen.json", "abdomen.nii.gz", "unnamed_0001.failed.json"]
    (failure,) = made.failures
    assert failure.startswith("scan 1 of 2 by name: expected a folder name")
    assert "-o NAME.nii.gz" in failure
    first, second = status([dicom_scans], masks, progress=silent)
    assert (first.state, second.state) == (State.DONE, State.FAILED)
    assert_nothing_tells(failure, str(heard), second.case.name, second.reason, folder=masks)
    (masks / "unnamed_0007.failed.json").write_text("another scan's")
    (dicom_scans / NAMED).rename(dicom_scans / "pelvis")
    assert not run(dicom_scans).failures
    assert names(masks) == [
        "abdomen.json", "abdomen.nii.gz", "pelvis.json", "pelvis.nii.gz", "unnamed_0007.failed.json",
    ]  # fmt: skip


def test_a_manifest_names_its_test_cases(tiny_manifest, tmp_path):
    manifest = read_manifest(tiny_manifest)
    found = find_cases([tiny_manifest], tmp_path / "masks")
    assert [case.scan.name for case in found] == sorted(case.case_id for case in manifest.test)
    assert all(case.scan.path.is_file() for case in found)
    assert found[0].files.mask == tmp_path / "masks" / f"{found[0].name}.nii.gz"
    without = tmp_path / "without.json"
    write_manifest(manifest.model_copy(update={"test": ()}), without)
    with pytest.raises(UserError, match="expected a manifest with test cases, found none"):
        find_cases([without], tmp_path / "masks")


def test_such_a_scan_alone_needs_an_output_of_another_name(run, dicom_scans, tmp_path):
    with pytest.raises(UserError, match=r"scan 1 of 1 by name.*-o NAME\.nii\.gz") as refused:
        run(dicom_scans / NAMED)
    outputs = Outputs(statistics=True, preview=True)
    run(dicom_scans / NAMED, output=tmp_path / "one" / "liver.nii.gz", outputs=outputs)
    assert "liver" in (tmp_path / "one" / "liver_statistics.csv").read_text()
    assert_nothing_tells(str(refused.value), folder=tmp_path / "one")


def test_a_case_refused_for_its_name_is_refused_by_workers_of_a_cluster_too(request_, dicom_scans, tmp_path):
    case = find_cases([dicom_scans], tmp_path / "masks")[1]
    sent = cluster._with_absolute_paths(case)
    job = cluster.Job(case=sent, resolved=resolve(request_), version=__version__, threads=None)
    outcome = cluster.carry_out(pickle.loads(pickle.dumps(job)))
    assert outcome.message.startswith("scan 1 of 2 by name")
    assert_nothing_tells(outcome.message, folder=tmp_path / "masks")


def test_names_of_slices_stay_out_of_failures_that_are_written_down(run, dicom_scans, tmp_path):
    first = dicom_scans / "abdomen" / "1-001.dcm"
    first.rename(first.with_name("Mueller.dcm"))
    damaged = first.with_name("Mueller.dcm").read_bytes()
    first.with_name("Mueller.dcm").write_bytes(damaged[:-40])
    run(dicom_scans)
    written = (tmp_path / "masks" / "abdomen.failed.json").read_text()
    assert "abdomen, file 6 of 6 by name: expected a whole DICOM file" in written
    assert_nothing_tells(folder=tmp_path / "masks")
