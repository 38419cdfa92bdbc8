"""A loss that is no number, and a device without room: what is said, and what is kept."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from ct_attn.errors import UserError
from ct_attn.manifest import read_manifest
from ct_attn.train import train
from ct_attn.training import module
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


def test_validation_is_told_apart():
    assert "spacing_mm" in advice(1, *LARGE, validating=True)


def test_the_machines_own_memory_counts_too():
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
