from __future__ import annotations

import pytest
import torch

from ct_attn import device
from ct_attn.device import channels_last, choose_device, choose_precision, computes_bf16
from ct_attn.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(
        UserError, match=f"--device {name}: expected a device of this machine.*ct-attn doctor"
    ):
        choose_device(name)


def test_a_device_by_name():
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize(("there", "chosen"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_a_graphics_card_where_there_is_one(monkeypatch, there, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device().type == chosen


@pytest.mark.parametrize("native", [True, False])
def test_precision_follows_the_request_and_auto_the_processor(monkeypatch, native):
    monkeypatch.setattr(device, "computes_bf16", lambda _: native)
    assert choose_precision("fp32", CPU) is torch.float32
    assert choose_precision("bf16", CPU) is torch.bfloat16
    assert choose_precision("auto", CPU) is (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"neon": True}, False),
    ],
)
def test_a_processor_computes_bf16_if_its_flags_say_so(monkeypatch, flags, native):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    assert computes_bf16(CPU) is native


def test_a_torch_that_cannot_read_the_flags_computes_in_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert computes_bf16(CPU) is False


def test_other_devices_compute_in_fp32():
    assert computes_bf16(torch.device("meta")) is False


def test_channels_last_changes_the_layout_and_nothing_else():
    network = torch.nn.Conv3d(4, 4, 3)
    before = network.weight.detach().clone()
    assert channels_last(network) is network
    assert network.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(network.weight, before)
