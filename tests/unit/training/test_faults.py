"""A loss that is no number, and a device without room: what is said, and what is kept."""

from __future__ import annotations

import errno
import json
import re

import pytest
import torch
from safetensors import safe_open

from ct_attn.errors import UserError
from ct_attn.manifest import read_manifest
from ct_attn.train import train
from ct_attn.training import faults, module
from ct_attn.training.faults import is_out_of_memory, out_of_memory
from tests.cohorts import tiny_recipe

GIB = 2**30


def after(calls, what, monkeypatch):
    """Let the loss be ``what`` makes of it from the call ``calls`` on."""
    true_loss, seen = module.supervised_loss, []

    def loss(*given):
        seen.append(None)
        value = true_loss(*given)
        return what(value) if len(seen) >= calls else value

    monkeypatch.setattr(module, "supervised_loss", loss)


def test_a_loss_that_is_no_number_names_cases_patches_epoch_and_step_and_keeps_the_batch(
    tiny_manifest, tmp_path, silent, monkeypatch
):
    recipe = tiny_recipe(
        "training.epochs=2", "training.optimizer.accumulate=2", "training.batches_per_epoch=4"
    )
    after(7, lambda loss: loss * float("nan"), monkeypatch)
    with pytest.raises(UserError, match=r"epoch 2, step 2: .* found nan on the patches of (.*)") as caught:
        train(recipe, tiny_manifest, tmp_path / "run", progress=silent)
    file = tmp_path / "run" / "non_finite_batch.safetensors"
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata()
        kept = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 # no mapping
    cases = json.loads(header["case_ids"])
    assert set(cases) <= {case.case_id for case in read_manifest(tiny_manifest).training}
    for case_id, start in zip(cases, kept["start"].tolist(), strict=True):
        assert f"{case_id} from voxel {tuple(start)}" in caught.value.found
    assert (header["epoch"], header["step"], header["loss"]) == ("2", "2", "nan")
    assert kept["image"].shape == (2, 1, *recipe.training.patch_size)
    assert torch.load(tmp_path / "run" / "state.ckpt", weights_only=True)["epoch"] == 0


def test_a_gpu_without_room_is_one_line_that_says_what_to_lower(tiny_manifest, tmp_path, silent, monkeypatch):
    def full(loss):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    after(2, full, monkeypatch)
    with pytest.raises(UserError, match=r"out of memory: .* training\.batch_size=1 \(was 2\)"):
        train(tiny_recipe(), tiny_manifest, tmp_path / "run", progress=silent)


def advice(memory_gib, *overrides, **how):
    recipe = tiny_recipe("network.widths=[16, 32, 64]", *overrides)
    device = torch.device("cuda:0")
    error = out_of_memory(recipe, device=device, memory_bytes=memory_gib * GIB, dtype=torch.float32, **how)
    return error.remedy


LARGE = ("training.patch_size=[160, 160, 96]", "training.batch_size=4")


def test_smaller_batches_come_first_and_keep_the_patches_of_a_step_and_an_epoch():
    said = advice(8, *LARGE, "training.optimizer.accumulate=2")
    assert "training.batch_size=" in said
    assert "training.optimizer.accumulate=" in said
    size = int(said.split("training.batch_size=")[1].split()[0])
    accumulate = int(said.split("training.optimizer.accumulate=")[1].split()[0])
    batches = int(said.split("training.batches_per_epoch=")[1].split()[0])
    assert size * accumulate == 4 * 2
    assert size * batches == 4 * 3
    assert "checkpointing" not in said


def test_then_checkpointing_and_then_smaller_patches():
    assert "network.checkpointing=true" in advice(1.5, *LARGE)
    assert "patch_size" not in advice(1.5, *LARGE)
    said = advice(0.3, *LARGE)
    assert "training.patch_size=[" in said
    assert "(was 160x160x96)" in said


def test_what_fits_by_the_estimate_and_did_not_is_lowered_all_the_same():
    assert "training.batch_size=2 (was 4)" in advice(1000, *LARGE)


def test_where_nothing_helps_a_narrower_network_does():
    assert "network.widths" in advice(0.001, *LARGE)


@pytest.mark.parametrize(
    ("memory_gib", "spacing", "times", "said"),
    [
        (10, (2, 2, 2), 1.25, r"=\[2\.16, 2\.16, 2\.16\] \(was \[2, 2, 2\]\)"),  # what LESS asks for
        (1, (2, 2, 2), 2 / 0.9, r"=\[2\.61, 2\.61, 2\.61\]"),
        (10, (2, 2, None), 1.25, r"=\[2\.24, 2\.24, null\] \(was \[2, 2, null\]\)"),
    ],
)
def test_validation_says_what_a_scan_needs_and_on_which_spacing_it_fits(memory_gib, spacing, times, said):
    recipe = tiny_recipe()
    preprocessing = recipe.preprocessing.model_copy(update={"spacing_mm": spacing})
    recipe = recipe.model_copy(update={"preprocessing": preprocessing})
    assert recipe.n_outputs == 4
    shape = (512, 256, 256)  # times 4 outputs of 4 bytes, four times: 2 GiB
    error = out_of_memory(
        recipe, device=torch.device("cuda:0"), memory_bytes=memory_gib * GIB, dtype=torch.float32,
        validated=shape,
    )  # fmt: skip
    assert "in validation" in error.subject
    assert "about 2 GiB for the logits and the loss of a scan of 512x256x256 voxels" in error.expected
    assert re.search(said, error.remedy)
    coarser = float(error.remedy.split("[")[1].split(",")[0]) / 2
    assert coarser ** sum(step is not None for step in spacing) == pytest.approx(times, rel=0.02)


def test_no_room_in_validation_names_the_scan_and_none_in_training_does_not(
    tiny_manifest, tmp_path, silent, monkeypatch
):
    def full(*given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(module, "score_labels", full)
    with pytest.raises(
        UserError, match=r"in validation: .* of a scan of \d+x\d+x\d+ voxels, .*spacing_mm=\["
    ):
        train(tiny_recipe(), tiny_manifest, tmp_path / "run", progress=silent)


def test_a_disk_that_does_not_take_the_batch_does_not_hide_what_was_found(
    tiny_manifest, tmp_path, silent, monkeypatch
):
    def no_room(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(faults, "save_file", no_room)
    after(1, lambda loss: loss / 0, monkeypatch)
    with pytest.raises(UserError, match=r"epoch 1, step 1: .* found inf on .* could not be written"):
        train(tiny_recipe(), tiny_manifest, tmp_path / "run", progress=silent)
    assert not list((tmp_path / "run").glob("*non_finite*"))


def test_the_machines_own_memory_counts_too():
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
