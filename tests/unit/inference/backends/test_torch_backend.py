"""Networks in torch, plain and through torch.compile."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from ct_attn.errors import UserError
from ct_attn.inference.backends.backend import OutOfMemoryError
from ct_attn.inference.backends.choose import choose_backend
from ct_attn.inference.backends.torch_backend import TorchBackend
from ct_attn.inference.options import InferenceOptions
from ct_attn.model_file import read_model_file
from ct_attn.network.build import build_network
from ct_attn.network.configs import UNetConfig
from tests.unit.inference.models import saved

CPU = torch.device("cpu")
WINDOW = np.random.default_rng(0).random((1, 1, 16, 16, 8), dtype=np.float32)


class Doubled(torch.nn.Module):
    def forward(self, batch):
        return 2 * batch


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = build_network(UNetConfig(widths=(2, 3)), in_channels=1, n_classes=2)
        built(torch.rand(2, 1, 16, 16, 16))  # its normalisation has seen data
    return built.eval()


def test_logits_are_those_of_the_network_in_evaluation(network):
    expected = network(torch.from_numpy(WINDOW)).detach().numpy()
    found = TorchBackend(network, CPU).logits(WINDOW)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert found.std() > 0.01


def test_what_is_to_be_computed_may_be_a_part_of_the_network(network):
    backend = TorchBackend(network, CPU, compute=lambda _: lambda batch: 3 * batch)
    assert np.array_equal(backend.logits(WINDOW), 3 * WINDOW)


def test_it_says_where_and_how_it_computes(network):
    backend = TorchBackend(network, CPU, "bf16")
    assert (backend.name, backend.precision) == ("torch cpu", "bf16")


@pytest.mark.parametrize("compiled", [False, True])
def test_a_device_without_room_is_told_apart_from_other_faults(monkeypatch, compiled):
    def full(batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")

    monkeypatch.setattr(torch, "compile", lambda compute, dynamic: full)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    notes: list[str] = []
    compute = None if compiled else (lambda network: full)
    more = {} if compute is None else {"compute": compute}
    backend = TorchBackend(Doubled(), CPU, compiled=compiled, on_note=notes.append, **more)
    with pytest.raises(OutOfMemoryError, match=r"Tried to allocate 2 GiB$"):
        backend.logits(WINDOW)
    assert not notes


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_compiled_network_says_what_it_says_uncompiled(network):
    notes: list[str] = []
    compiled = TorchBackend(network, CPU, compiled=True, on_note=notes.append)
    plain = TorchBackend(network, CPU)
    for window in (WINDOW, np.concatenate([WINDOW, 1 - WINDOW], axis=2)):
        np.testing.assert_allclose(compiled.logits(window), plain.logits(window), rtol=0, atol=1e-5)
    assert not notes


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("backend='inductor' raised:\nInvalidCxxCompiler: none", "it needs a C++ compiler, such as g++"),
        ("an operator that is not known\nand a page more", "an operator that is not known"),
    ],
)
def test_what_cannot_be_compiled_is_computed_as_it_is_and_that_is_said_once(monkeypatch, said, told):
    def fail(batch):
        raise RuntimeError(said)

    monkeypatch.setattr(torch, "compile", lambda compute, dynamic: fail)
    notes: list[str] = []
    backend = TorchBackend(Doubled(), CPU, compiled=True, on_note=notes.append)
    for _ in range(2):
        assert np.array_equal(backend.logits(WINDOW), 2 * WINDOW)
    assert notes == [f"torch.compile failed ({told}); the network is computed without"]


def test_a_fault_of_the_network_itself_is_raised_compiled_or_not(monkeypatch):
    def fail(batch):
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr(torch, "compile", lambda compute, dynamic: compute)
    backend = TorchBackend(Doubled(), CPU, compute=lambda _: fail, compiled=True)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        backend.logits(WINDOW)


def test_to_compile_takes_torch_and_says_what_that_costs(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda compute, dynamic: asked.append(compute) or compute)
    model = read_model_file(saved(tmp_path))
    notes: list[str] = []
    options = InferenceOptions(device="cpu", compile=True)
    assert choose_backend(model, options, notes.append).name == "torch cpu"
    assert len(asked) == 1
    assert len(notes) == 1
    assert "the first window of every size takes longer" in notes[0]


def test_openvino_is_not_compiled_through_torch(tmp_path):
    model = read_model_file(saved(tmp_path))
    options = InferenceOptions(device="cpu", backend="openvino", compile=True)
    with pytest.raises(UserError, match="--compile: expected the torch backend, found --backend openvino"):
        choose_backend(model, options, print)
