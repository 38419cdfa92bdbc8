"""Who started the processes, how many there are, and what is refused."""

from __future__ import annotations

import pytest
import torch

from ct_attn.errors import UserError
from ct_attn.network.build import build_network
from ct_attn.training.launch import Launch, find_launch, leave_with_others, lost_another, require_norms
from tests.cohorts import tiny_recipe

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3", "LOCAL_RANK": "1",
}  # fmt: skip
SLURM = {
    "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "2", "SLURM_STEP_ID": "0",
    "SLURM_JOB_NAME": "train",
}  # fmt: skip


def test_one_process_needs_nobody():
    assert find_launch(1, 1, {}) == Launch()
    assert find_launch(1, 1, {"SLURM_NTASKS": "1"}) == Launch()


def test_lightnings_own_processes_know_their_place():
    first = find_launch(2, 1, {})
    assert (first.rank, first.n_processes, first.is_first, first.is_child) == (0, 2, True, False)
    second = find_launch(2, 1, {"LOCAL_RANK": "1", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"})
    assert (second.rank, second.is_first, second.is_child) == (1, False, True)
    there = find_launch(2, 2, {"LOCAL_RANK": "1", "NODE_RANK": "1", "MASTER_ADDR": "node0"})
    assert there.rank == 3


def test_torchrun_and_slurm_are_found(monkeypatch):
    assert find_launch(2, 2, TORCHRUN).rank == 3
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)  # Lightning looks there itself
    assert find_launch(2, 2, SLURM).rank == 2


@pytest.mark.parametrize(
    ("devices", "nodes", "variables", "found"),
    [
        (2, 1, TORCHRUN, "4 started by torchrun"),
        (1, 1, TORCHRUN, "4 started by torchrun"),
        (4, 1, TORCHRUN, "2 on this machine"),
        (2, 1, SLURM, "4 started by SLURM"),
        (1, 1, SLURM, "4 started by SLURM"),
        (1, 4, SLURM, "2 on this machine"),
        (2, 2, {**SLURM, "SLURM_STEP_ID": None}, "write srun in front"),
        (2, 2, {**SLURM, "SLURM_NTASKS_PER_NODE": None}, "--ntasks-per-node"),
        (2, 2, {}, "by srun or torchrun"),
    ],
)
def test_another_number_of_processes_than_asked_for_is_refused(devices, nodes, variables, found):
    given = {name: value for name, value in variables.items() if value is not None}
    with pytest.raises(UserError, match=found):
        find_launch(devices, nodes, given)


def test_a_shell_inside_slurm_is_no_job():
    assert find_launch(1, 1, {**SLURM, "SLURM_JOB_NAME": "bash"}) == Launch()


@pytest.mark.parametrize(
    ("norm", "processes", "synchronised", "refused"),
    [
        ("batch", 2, True, True),
        ("batch", 2, False, False),
        ("batch", 1, True, False),
        ("instance", 2, True, False),
        ("group", 2, True, False),
    ],
)
def test_batch_normalisation_over_processes_is_refused_on_the_cpu(norm, processes, synchronised, refused):
    recipe = tiny_recipe(f"network.norm={norm}")
    network = build_network(recipe.network, in_channels=1, n_classes=recipe.n_classes)

    def check(device):
        require_norms(network, Launch(devices=processes), torch.device(device), synchronised=synchronised)

    check("cuda")
    if refused:
        with pytest.raises(UserError, match=r"--set network\.norm=instance"):
            check("cpu")
    else:
        check("cpu")


def test_the_loss_of_another_process_is_told_from_errors_of_ones_own():
    gone = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    assert lost_another(gone)
    assert not lost_another(RuntimeError("shapes differ"))
    with pytest.raises(UserError, match="see what it said"):
        leave_with_others(Launch(devices=2), gone)
    with pytest.raises(SystemExit) as left:
        leave_with_others(Launch(devices=2, rank=1), gone)
    assert left.value.code == 0
