"""``ct-attn train`` where it must refuse, and where the disk fills up."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress

import pytest

from ct_attn.recipe import write_recipe
from ct_attn.training.callbacks import SaveState
from ct_attn.training.state import content_digest, read_state
from tests.cohorts import tiny_recipe
from tests.command import ct_attn


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    write_recipe(
        tiny_recipe("network={kind: unet, widths: [2, 4]}", "training.patch_size=[16, 16, 16]"), path
    )
    return path


def refused(*arguments):
    done = ct_attn("train", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("error: ") == 1
    return done.stderr


def with_patient(manifest, side, tmp_path):
    """The manifest with the first case's patient in another fold, or in the test cases."""
    fields = json.loads(manifest.read_text())
    first = fields["training"][0]
    other = fields["test"][0]
    if side == "validation":
        other = next(case for case in fields["training"] if case["fold"] != first["fold"])
    other["patient_id"] = first["patient_id"]
    path = tmp_path / "leaking.json"
    path.write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("side", ["validation", "test"])
def test_a_patient_on_two_sides_is_refused(recipe, tiny_manifest, tmp_path, side):
    leaking = with_patient(tiny_manifest, side, tmp_path)
    said = refused(recipe, "--data", leaking, "-o", tmp_path / "run")
    assert "patient" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "variables", "said"),
    [
        (("--set", "training.precision=fp16"), {}, "training.precision fp16: expected a GPU"),
        (("--devices", 2), {}, "--set network.norm=instance"),
        (("--nodes", 2), {}, "by srun or torchrun"),
        (
            ("--devices", 2),
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3", "RANK": "0", "LOCAL_RANK": "0"},
            "expected 2 processes, found 3 started by torchrun",
        ),
        (("--devices", 2), {"SLURM_NTASKS": "4"}, "expected 2 processes, found 4 started by SLURM"),
        ((), {"OMPI_COMM_WORLD_SIZE": "4"}, "found 4 of mpirun's (OMPI_COMM_WORLD_SIZE)"),
        ((), {"WORLD_SIZE": "4", "RANK": "1"}, "found 4 by WORLD_SIZE"),
    ],
)
def test_what_cannot_be_trained_with_is_one_line(
    recipe, tiny_manifest, tmp_path, monkeypatch, options, variables, said
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    arguments = (recipe, "--data", tiny_manifest, "-o", tmp_path / "run", "--device", "cpu")
    assert said in refused(*arguments, *options)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a tmpfs needs rights that are not there")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def state_of(run):
    content = read_state(run / "state.ckpt", run / "state.previous.ckpt", print).content
    return content["epoch"], content_digest([content[part] for part in ("state_dict", "callbacks")])


def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
    recipe, tiny_manifest, tmp_path, small_disk, monkeypatch
):
    arguments = ("train", recipe, "--data", tiny_manifest, "--device", "cpu")
    assert ct_attn(*arguments, "-o", tmp_path / "twin").returncode == 0
    save = SaveState.on_train_epoch_end
    run, ballast = small_disk / "run", small_disk / "ballast"

    def fill_then_save(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(4096)):
                    pass
        save(self, trainer, pl_module)

    with monkeypatch.context() as patch:
        patch.setattr(SaveState, "on_train_epoch_end", fill_then_save)
        done = ct_attn(*arguments, "-o", run)
    assert done.returncode == 2
    assert "state.ckpt" in done.stderr
    assert "No space left on device; make room and go on with --resume" in done.stderr
    assert not list(run.glob(".partial-*"))
    assert state_of(run)[0] == 1
    ballast.unlink()
    assert ct_attn(*arguments, "-o", run, "--resume").returncode == 0
    assert state_of(run) == state_of(tmp_path / "twin")
    assert (run / "log.csv").read_bytes() == (tmp_path / "twin" / "log.csv").read_bytes()
