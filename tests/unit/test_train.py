"""Whole trainings, tiny ones: what they write, that they repeat, that they resume."""

from __future__ import annotations

import csv
import json
import shutil
from math import nan

import lightning
import pytest
import torch

from ct_attn.checkpoint import load_checkpoint
from ct_attn.device import choose_device
from ct_attn.errors import UserError
from ct_attn.manifest import read_manifest, write_manifest
from ct_attn.train import train
from ct_attn.training.cache import FOLDER_NAME
from ct_attn.training.callbacks import SaveState
from ct_attn.training.module import SegmentationModule
from ct_attn.training.run_folder import RunFolder, unfinished
from ct_attn.training.start import Start
from tests.cohorts import tiny_recipe
from tests.command import ct_attn


def weights_of(model):
    return load_checkpoint(model).weights


def content_of(run):
    return torch.load(run / "state.ckpt", weights_only=True)


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.fixture(scope="module")
def finished_run(tiny_manifest, tmp_path_factory):
    from rich.progress import Progress

    output = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(tiny_recipe(), tiny_manifest, output, progress=Progress(disable=True))
    return output


def test_a_run_leaves_model_recipe_record_log_and_state(finished_run):
    files = (path.relative_to(finished_run) for path in finished_run.rglob("*") if path.is_file())
    made = {path.as_posix() for path in files if path.parts[0] != "tensorboard"}
    assert made == {
        "model/model.safetensors", "recipe.yaml", "run.json", "log.csv", "report.html", "progress.png",
        "state.ckpt", "state.previous.ckpt", "last/model.safetensors",
    }  # fmt: skip


def test_the_last_model_has_the_weights_of_the_state_and_predicts(finished_run, tiny_manifest, tmp_path):
    last, state = load_checkpoint(finished_run / "last"), content_of(finished_run)
    for name, tensor in last.weights.items():
        assert torch.equal(tensor, state["state_dict"][f"network.{name}"]), name
    assert (last.provenance["epoch"], last.provenance["finished"]) == (3, True)
    scan = next((tiny_manifest.parent / "imagesTs").iterdir())
    done = ct_attn("predict", "-m", finished_run / "last", "-i", scan, "-o", tmp_path / "masks")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "masks").glob("*.nii.gz"))


def test_the_log_has_the_loss_of_every_epoch_and_dsc_of_every_validation(finished_run):
    with (finished_run / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert all(0 < float(row["loss"]) < 1 for row in rows)
    assert {float(row["learning_rate"]) for row in rows} == {0.01}
    validations = [row for row in rows if row["dsc"]]
    assert [row["epoch"] for row in validations] == ["1", "3"]
    for row in validations:
        mean = sum(float(row[f"dsc_{organ}"]) for organ in ("pancreas", "spleen", "kidney")) / 3
        assert float(row["dsc"]) == pytest.approx(mean, abs=1e-6)
        assert 0 < float(row["validation_loss"]) < 1
        for organ in ("pancreas", "spleen", "kidney"):  # none is absent from a phantom
            assert float(row[f"iou_{organ}"]) <= float(row[f"dsc_{organ}"])
            assert float(row[f"recall_{organ}"]) >= 0


def test_the_log_has_s2s_in_mm_where_an_organ_was_found(finished_run):
    with (finished_run / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["dsc"]]
    organs = ("pancreas", "spleen", "kidney")
    found = [(float(row[f"dsc_{o}"]), float(row[f"s2s_mm_{o}"])) for row in rows for o in organs]
    assert any(dsc > 0 for dsc, _ in found)
    assert all(0 < s2s_mm < 500 for dsc, s2s_mm in found if dsc > 0)


def test_the_model_kept_is_the_one_with_the_best_validation_dsc(finished_run):
    with (finished_run / "log.csv").open() as file:
        dsc = [float(row["dsc"]) for row in csv.DictReader(file) if row["dsc"]]
    assert load_checkpoint(finished_run / "model").provenance["validation_dsc"] == pytest.approx(
        max(dsc), abs=1e-5
    )


def test_the_same_seed_gives_the_same_weights(finished_run, tiny_manifest, tmp_path, silent):
    model = train(tiny_recipe(), tiny_manifest, tmp_path / "again", progress=silent)
    assert_same_weights(weights_of(finished_run / "model"), weights_of(model))


def test_another_seed_gives_other_weights(finished_run, tiny_manifest, tmp_path, silent):
    model = train(tiny_recipe("training.seed=1"), tiny_manifest, tmp_path / "other", progress=silent)
    name = next(name for name in weights_of(model) if name.endswith(".weight"))
    assert not torch.equal(weights_of(finished_run / "model")[name], weights_of(model)[name])


def test_a_run_stopped_after_an_epoch_and_resumed_ends_with_the_same_weights(
    finished_run, tiny_manifest, tmp_path, silent, monkeypatch
):
    output = tmp_path / "resumed"
    stop_after(1, tiny_recipe(), tiny_manifest, output, silent, monkeypatch)
    assert load_checkpoint(output / "last").provenance["finished"] is False
    assert unfinished(RunFolder(path=output), tiny_recipe()) == "2 of 4 epochs"
    assert unfinished(RunFolder(path=output), tiny_recipe("training.early_stopping_epochs=1"))
    shutil.rmtree(output / "last")  # as a run of before had none, or a kill just before it was written
    model = train(tiny_recipe(), tiny_manifest, output, progress=silent, resume=True)
    assert_same_weights(weights_of(finished_run / "model"), weights_of(model))
    assert_same_weights(weights_of(finished_run / "last"), weights_of(output / "last"))
    for name in ("log.csv", "report.html"):
        assert (output / name).read_bytes() == (finished_run / name).read_bytes()


EVERYTHING = (
    "training.ema_decay=0.5", "training.optimizer.accumulate=2", "training.optimizer.clip_norm=0.1",
    "training.optimizer.name=sgd", "training.optimizer.momentum=0.9",
    "training.optimizer.schedule=poly", "training.optimizer.warmup_epochs=1",
    "training.first_stage={epochs: 1}", "training.validate_every=1",
)  # fmt: skip


def stop_after(epoch, recipe, manifest, output, progress, monkeypatch):
    """Train as far as the end of ``epoch``, and no further."""

    class PowerCut(BaseException):
        pass

    save = SaveState.on_train_epoch_end

    def save_then_stop(self, trainer, pl_module):
        save(self, trainer, pl_module)
        if trainer.current_epoch == epoch:
            raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(SaveState, "on_train_epoch_end", save_then_stop)
        with pytest.raises(PowerCut):
            train(recipe, manifest, output, progress=progress)


def test_average_schedule_and_momentum_survive_a_stop(tiny_manifest, tmp_path, silent, monkeypatch):
    recipe = tiny_recipe(*EVERYTHING)
    train(recipe, tiny_manifest, tmp_path / "whole", progress=silent)
    stop_after(1, recipe, tiny_manifest, tmp_path / "resumed", silent, monkeypatch)
    train(recipe, tiny_manifest, tmp_path / "resumed", progress=silent, resume=True)
    states = [
        torch.load(tmp_path / run / "state.ckpt", weights_only=True)["state_dict"]
        for run in ("whole", "resumed")
    ]
    assert_same_weights(*states)
    for name in ("log.csv", "report.html"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()


def test_the_average_of_the_weights_is_what_is_kept(tiny_manifest, tmp_path, silent):
    recipe = tiny_recipe("training.ema_decay=0.5", "training.epochs=1", "training.validate_every=1")
    kept = weights_of(train(recipe, tiny_manifest, tmp_path / "run", progress=silent))
    assert_same_weights(kept, weights_of(tmp_path / "run" / "last"))  # of one epoch both
    state = content_of(tmp_path / "run")["state_dict"]
    for name, tensor in kept.items():
        assert torch.equal(tensor, state[f"average.module.{name}"])
    assert not torch.equal(kept["center.0.0.weight"], state["network.center.0.0.weight"])


def test_a_training_without_gain_stops_early_and_stays_stopped(tiny_manifest, tmp_path, silent):
    recipe = tiny_recipe(
        "training.optimizer.learning_rate=1e-30", "training.early_stopping_epochs=1",
        "training.epochs=20", "training.validate_every=1", "training.batches_per_epoch=1",
        "training.ema_decay=0.99999",
    )  # fmt: skip
    train(recipe, tiny_manifest, tmp_path / "run", progress=silent)
    log = (tmp_path / "run" / "log.csv").read_bytes()
    assert log.count(b"\n") < 12
    last = load_checkpoint(tmp_path / "run" / "last").provenance
    assert (last["epoch"], last["finished"]) == (log.count(b"\n") - 2, True)
    assert unfinished(RunFolder(path=tmp_path / "run"), recipe) is None
    train(recipe, tiny_manifest, tmp_path / "run", progress=silent, resume=True)
    assert (tmp_path / "run" / "log.csv").read_bytes() == log


def test_resuming_a_finished_run_changes_nothing(finished_run, tiny_manifest, tmp_path, silent):
    output = shutil.copytree(finished_run, tmp_path / "copy")
    train(tiny_recipe(), tiny_manifest, output, progress=silent, resume=True)
    for name in ("model/model.safetensors", "last/model.safetensors", "log.csv", "recipe.yaml", "run.json"):
        assert (output / name).read_bytes() == (finished_run / name).read_bytes()


def test_a_folder_with_files_is_refused_without_resume(tiny_manifest, tmp_path, silent):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="--resume"):
        train(tiny_recipe(), tiny_manifest, tmp_path, progress=silent)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_goes_on_in_the_precision_and_on_the_kind_of_device_it_began_with(
    finished_run, tiny_manifest, tmp_path, silent
):
    record = json.loads((finished_run / "run.json").read_text())
    assert (record["device"], record["precision"]) == (choose_device("auto").type, "32-true")
    output = shutil.copytree(finished_run, tmp_path / "copy")
    elsewhere = record | {"device": "another", "precision": "bf16-mixed"}
    (output / "run.json").write_text(json.dumps(elsewhere))
    with pytest.raises(
        UserError, match=r"another device, precision \(another, bf16-mixed; here \w+, 32-true\)"
    ):
        train(tiny_recipe(), tiny_manifest, output, progress=silent, resume=True)


def test_resuming_with_another_recipe_is_refused(finished_run, tiny_manifest, silent):
    with pytest.raises(UserError, match="another recipe"):
        train(
            tiny_recipe("training.optimizer.learning_rate=0.5"),
            tiny_manifest,
            finished_run,
            progress=silent,
            resume=True,
        )


def parts_changed_after(epochs, tiny_manifest, output, silent):
    """The parts that differ from the first weights when gates train alone for one epoch."""
    recipe = tiny_recipe(
        "training.first_stage={epochs: 1}", "training.validate_every=1", f"training.epochs={epochs}"
    )
    train(recipe, tiny_manifest, output, progress=silent)
    lightning.seed_everything(0, verbose=False)
    first = SegmentationModule(recipe).state_dict()
    last = torch.load(output / "state.ckpt", weights_only=True)["state_dict"]
    return {name.split(".")[1] for name in first if not torch.equal(first[name], last[name])}


def test_gates_train_alone_first_and_the_rest_keeps_its_weights_and_statistics(
    tiny_manifest, tmp_path, silent
):
    assert parts_changed_after(1, tiny_manifest, tmp_path / "one", silent) == {"gates", "gating"}
    everything = {"encoder", "center", "decoder", "heads", "fuse", "gates", "gating"}
    assert parts_changed_after(2, tiny_manifest, tmp_path / "two", silent) == everything


def test_a_part_that_is_not_there_is_one_line_before_anything_is_read(tiny_manifest, tmp_path, silent):
    for change in ("training.freeze=[encodr]", "training.first_stage={epochs: 1, parts: [gates.0]}"):
        with pytest.raises(UserError, match=r"part '(encodr|gates\.0)'"):
            train(tiny_recipe(change), tiny_manifest, tmp_path / "run", progress=silent)
    assert not (tmp_path / "run").exists()


def test_a_run_starts_from_another_ones_weights_and_says_so(finished_run, tiny_manifest, tmp_path, silent):
    recipe = tiny_recipe("training.epochs=1", "training.validate_every=1", "training.freeze=[encoder]")
    start = Start(model=finished_run / "model")
    model = train(recipe, tiny_manifest, tmp_path / "run", progress=silent, start=start)
    earlier, trained = weights_of(finished_run / "model"), load_checkpoint(model)
    encoder = [name for name in earlier if name.startswith("encoder.")]
    assert all(torch.equal(trained.weights[name], earlier[name]) for name in encoder)
    assert not torch.equal(trained.weights["center.0.0.weight"], earlier["center.0.0.weight"])
    assert trained.provenance["init_from"].startswith("sha256:")
    with pytest.raises(UserError, match="another init_from"):
        train(recipe, tiny_manifest, tmp_path / "run", progress=silent, resume=True)


def test_the_report_shows_the_gates_after_the_epochs_asked_for_and_the_last(tiny_manifest, tmp_path, silent):
    train(tiny_recipe("training.attention_epochs=[2]"), tiny_manifest, tmp_path / "run", progress=silent)
    html = (tmp_path / "run" / "report.html").read_text()
    assert "coefficients of the gates after epochs 2, 4" in html
    state = torch.load(tmp_path / "run" / "state.ckpt", weights_only=True)
    maps = state["callbacks"]["KeepAttention"]["maps"]
    assert list(maps) == [2, 4]
    assert not torch.equal(maps[2]["level1"], maps[4]["level1"])
    assert all(0 < alpha.min() <= alpha.max() < 1 for gates in maps.values() for alpha in gates.values())
    assert maps[4]["level1"].untyped_storage().nbytes() == maps[4]["level1"].nbytes


def test_a_network_without_gates_has_a_report_without_attention(tiny_manifest, tmp_path, silent):
    recipe = tiny_recipe("network.kind=unet", "training.epochs=1", "training.validate_every=1")
    train(recipe, tiny_manifest, tmp_path / "run", progress=silent)
    html = (tmp_path / "run" / "report.html").read_text()
    assert "DSC on training patches" in html
    assert "Attention over the training" not in html


def with_labelled(manifest_path, output, organs):
    """The manifest with training cases that label ``organs`` only, its paths made absolute."""
    manifest = read_manifest(manifest_path)
    root = manifest_path.parent
    training = tuple(
        case.model_copy(
            update={
                "labelled_organs": organs,
                "image": str(root / case.image),
                "label": str(root / case.label),
            }
        )
        for case in manifest.training
    )
    write_manifest(manifest.model_copy(update={"training": training}), output)
    return output


def test_a_target_that_no_case_labels_is_refused(tiny_manifest, tmp_path, silent):
    path = with_labelled(tiny_manifest, tmp_path / "manifest.json", ("pancreas", "spleen"))
    with pytest.raises(UserError, match="none that labels left_kidney or right_kidney"):
        train(tiny_recipe(), path, tmp_path / "run", progress=silent)
    assert not (tmp_path / "run").exists()


def test_half_labelled_kidneys_train_and_are_not_validated(tiny_manifest, tmp_path, silent):
    path = with_labelled(tiny_manifest, tmp_path / "manifest.json", ("pancreas", "spleen", "left_kidney"))
    recipe = tiny_recipe("training.epochs=1", "training.validate_every=1")
    train(recipe, path, tmp_path / "run", progress=silent)
    with (tmp_path / "run" / "log.csv").open() as file:
        validated = next(row for row in csv.DictReader(file) if row["dsc"])
    assert validated["dsc_kidney"] == "nan"
    known = (float(validated["dsc_pancreas"]) + float(validated["dsc_spleen"])) / 2
    assert float(validated["dsc"]) == pytest.approx(known, abs=1e-6)
    assert validated["training_dsc_kidney"] == validated["iou_kidney"] == "nan"
    assert 0 <= float(validated["training_dsc_spleen"]) <= 1


@pytest.mark.parametrize(
    ("overrides", "labelled"),
    [
        ((), ("spleen", "left_kidney", "right_kidney")),
        (("training.optimizer.accumulate=2",), ("spleen", "left_kidney")),
        (("loss.activation=sigmoid", "network.deep_supervision=per_scale"), ("spleen", "left_kidney")),
    ],
)
def test_the_log_has_the_ratios_of_the_voxels_of_all_patches_of_an_epoch(
    tiny_manifest, tmp_path, silent, monkeypatch, overrides, labelled
):
    path = with_labelled(tiny_manifest, tmp_path / "manifest.json", labelled)
    seen, step = {0: [], 1: []}, SegmentationModule.training_step

    def noted(self, batch, batch_index):
        with torch.no_grad():  # without batch statistics the same network gives the same
            outputs = self.network(batch["image"].contiguous(memory_format=torch.channels_last_3d))
        if recipe.loss.activation == "sigmoid":
            outputs = torch.cat([torch.zeros_like(outputs[:, :1]), outputs], dim=1)
        seen[self.current_epoch].append((outputs.argmax(1), batch["label"], batch["known"]))
        return step(self, batch, batch_index)

    monkeypatch.setattr(SegmentationModule, "training_step", noted)
    recipe = tiny_recipe(
        "training.epochs=2", "training.validate_every=2", "network.norm=instance",
        "targets={spleen: [spleen], kidney: [left_kidney, right_kidney]}", *overrides,
    )  # fmt: skip
    train(recipe, path, tmp_path / "run", progress=silent)
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    for epoch, row in enumerate(rows):
        masks, truth, known = (torch.cat(parts) for parts in zip(*seen[epoch], strict=True))
        assert len(masks) == 6  # three batches of two
        for code, name in enumerate(recipe.label_scheme.names, start=1):
            p, t = ((codes == code)[known[:, code]] for codes in (masks, truth))
            both, found, size = (int(voxels.sum()) for voxels in (p & t, p, t))
            expected = {
                "dsc": (2 * both, size + found), "iou": (both, size + found - both),
                "precision": (both, found), "recall": (both, size),
            }  # fmt: skip
            for ratio, (part, whole) in expected.items():
                logged = float(row[f"training_{ratio}_{name}"])
                value = part / whole if whole else nan
                assert logged == pytest.approx(value, rel=1e-6, nan_ok=True), (epoch, ratio, name)


def test_a_missing_scan_is_named_before_anything_is_written(tiny_manifest, tmp_path, silent):
    cohort = shutil.copytree(tiny_manifest.parent, tmp_path / "cohort")
    lost = next((cohort / "imagesTr").iterdir())
    lost.unlink()
    with pytest.raises(UserError, match=lost.name):
        train(tiny_recipe(), cohort / "manifest.json", tmp_path / "run", progress=silent)
    assert not (tmp_path / "run").exists()


def entries(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


ONE_EPOCH = ("training.epochs=1", "training.validate_every=1")


def test_a_second_training_finds_the_cases_prepared(tiny_manifest, tmp_path, silent):
    where = tmp_path / "cache"
    train(tiny_recipe(*ONE_EPOCH), tiny_manifest, tmp_path / "one", progress=silent, cache=where)
    first = entries(where)
    assert len(first) == 4
    train(tiny_recipe(*ONE_EPOCH), tiny_manifest, tmp_path / "two", progress=silent, fold=1, cache=where)
    assert entries(where) == first


def test_where_the_manifests_folder_cannot_be_written_the_cache_is_in_the_run(
    finished_run, tiny_manifest, tmp_path, silent
):
    cohort = shutil.copytree(tiny_manifest.parent, tmp_path / "cohort", ignore=lambda *_: [FOLDER_NAME])
    (cohort / FOLDER_NAME).write_text("a file takes its place")
    run = tmp_path / "run"
    shutil.copytree(tiny_manifest.parent / FOLDER_NAME, run / "cache")  # as left by an interrupted start
    model = train(tiny_recipe(), cohort / "manifest.json", run, progress=silent)
    assert entries(run / "cache").keys() == entries(tiny_manifest.parent / FOLDER_NAME).keys()
    assert_same_weights(weights_of(finished_run / "model"), weights_of(model))


def test_patches_drawn_by_other_processes_train_the_same_weights(
    finished_run, tiny_manifest, tmp_path, silent
):
    model = train(tiny_recipe("training.workers=2"), tiny_manifest, tmp_path / "run", progress=silent)
    assert_same_weights(weights_of(finished_run / "model"), weights_of(model))


def test_a_run_that_goes_by_the_loss_keeps_the_model_of_the_lowest(tiny_manifest, tmp_path, silent):
    model = train(
        tiny_recipe("training.best_by=loss", "training.validate_every=1"), tiny_manifest, tmp_path / "run",
        progress=silent,
    )  # fmt: skip
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["validation_loss"]) for row in rows]
    assert len(losses) == 4
    assert all(0 < loss < 1 for loss in losses)
    best = losses.index(min(losses))
    provenance = load_checkpoint(model).provenance
    assert provenance["epoch"] == best
    assert provenance["validation_dsc"] == pytest.approx(float(rows[best]["dsc"]), abs=1e-5)
