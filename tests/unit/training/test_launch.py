"""Who started the processes, how many there are, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ct_attn.errors import UserError
from ct_attn.network.build import build_network
from ct_attn.training.launch import (
    Launch,
    RequireSize,
    find_launch,
    leave_with_others,
    lost_another,
    require_norms,
)
from tests.cohorts import tiny_recipe

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3", "LOCAL_RANK": "1",
}  # fmt: skip
SLURM = {
    "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "2", "SLURM_STEP_ID": "0",
    "SLURM_JOB_NAME": "train", "SLURM_STEP_NUM_TASKS": "4",
}  # fmt: skip
LIGHTNINGS = {
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "NODE_RANK": "0", "LOCAL_RANK": "1", "WORLD_SIZE": "2",
}  # fmt: skip


def test_one_process_needs_nobody():
    assert find_launch(1, 1, {}) == Launch()
    assert find_launch(1, 1, {"SLURM_NTASKS": "1"}) == Launch()


def test_lightnings_own_processes_know_their_place():
    first = find_launch(2, 1, {})
    assert (first.rank, first.n_processes, first.is_first, first.is_child) == (0, 2, True, False)
    second = find_launch(2, 1, LIGHTNINGS)
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


@pytest.mark.parametrize("name", ["bash", "interactive"])
@pytest.mark.parametrize(
    "step",
    [{"SLURM_STEP_ID": None, "SLURM_STEP_NUM_TASKS": None}, {"SLURM_STEP_NUM_TASKS": "1"}],
    ids=["salloc", "srun --pty"],
)
def test_a_shell_inside_slurm_is_no_job(name, step):
    shell = {**SLURM, "SLURM_JOB_NAME": name, **step}
    given = {name: value for name, value in shell.items() if value is not None}
    assert find_launch(1, 1, given) == Launch()


@pytest.mark.parametrize("name", ["bash", "interactive"])
def test_what_srun_starts_from_such_a_shell_is_counted(name, monkeypatch):
    shell = {**SLURM, "SLURM_JOB_NAME": name}
    with pytest.raises(UserError, match="found 4 started by SLURM"):
        find_launch(1, 1, shell)
    for key, value in shell.items():
        monkeypatch.setenv(key, value)
    assert find_launch(2, 2, shell).rank == 2


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"WORLD_SIZE": "4", "RANK": "2"}, "4 by WORLD_SIZE"),
        ({"WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "2", "MASTER_ADDR": "node0"}, "4 by WORLD_SIZE"),
        ({"WORLD_SIZE": "3"}, "3 by WORLD_SIZE"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"}, "4 of mpirun's"),
        ({"PMI_SIZE": "4", "PMI_RANK": "1"}, "4 of mpirun's"),
        ({"SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4", "OMPI_COMM_WORLD_SIZE": "4"}, "4 of mpirun's"),
    ],
)
def test_processes_that_others_started_are_refused_whatever_was_asked_for(devices, variables, found):
    with pytest.raises(UserError, match=found):
        find_launch(devices, 1, variables)


def test_what_torchrun_or_srun_started_is_theirs_whatever_else_is_set(monkeypatch):
    alone = {"WORLD_SIZE": "1", "RANK": "0", "OMPI_COMM_WORLD_SIZE": "1", "PMI_SIZE": "1"}
    assert find_launch(1, 1, alone) == Launch()
    assert find_launch(2, 2, {**TORCHRUN, "OMPI_COMM_WORLD_SIZE": "2"}).rank == 3
    told_too = {"PMI_SIZE": "4", "PMI_RANK": "2", "WORLD_SIZE": "4", "RANK": "2"}
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert find_launch(2, 2, {**SLURM, **told_too}).rank == 2
    with pytest.raises(UserError, match="found 4 started by SLURM"):
        find_launch(1, 1, {**SLURM, **told_too})
    one_each = {"OMPI_COMM_WORLD_SIZE": "2", "MASTER_ADDR": "node0", "NODE_RANK": "1"}
    assert find_launch(4, 2, one_each).rank == 4


def test_a_training_of_another_size_than_asked_for_does_not_begin():
    two = RequireSize(Launch(devices=2))
    two.on_fit_start(SimpleNamespace(world_size=2), None)
    with pytest.raises(UserError, match="expected 2 processes, found 1 that train together"):
        two.on_fit_start(SimpleNamespace(world_size=1), None)


@pytest.mark.parametrize(
    ("device", "asked", "synchronised"),
    [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)],
)
def test_batch_normalisation_is_synchronised_on_gpus_where_the_recipe_says_so(device, asked, synchronised):
    options = find_launch(2, 1, {}).trainer_options(torch.device(device), synchronised=asked)
    assert options["sync_batchnorm"] is synchronised
    assert "sync_batchnorm" not in Launch().trainer_options(torch.device(device), synchronised=asked)


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
