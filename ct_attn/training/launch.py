"""The processes of a training: how many, who started them, and which of them this is.

Lightning starts them on one machine, torchrun or SLURM on one or several; they tell
each process its place by environment variables.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ct_attn.errors import UserError

#: Longer than any process waits for another: one draws pictures, or prepares a large case.
PATIENCE = timedelta(hours=6)
#: Where mpirun tells a process how many there are: Open MPI, MPICH and Intel MPI, MVAPICH2.
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """``devices`` processes on each of ``nodes`` machines, of which this one has ``rank``.

    ``environment`` is Lightning's view of who started them. ``is_child``: Lightning
    started this process, by running the first one's command line again.
    """

    devices: int = 1
    nodes: int = 1
    rank: int = 0
    is_child: bool = False
    environment: ClusterEnvironment | None = None

    @property
    def n_processes(self) -> int:
        return self.devices * self.nodes

    @property
    def is_first(self) -> bool:
        """Whether this process alone writes files and talks."""
        return self.rank == 0

    def trainer_options(self, target: torch.device, *, synchronised: bool) -> dict[str, Any]:
        """What Lightning's Trainer must know of devices and processes.

        ``synchronised``: batch normalisation is over the patches of all processes, on GPUs.
        """
        if self.n_processes == 1:
            index = target.index or 0
            return {"devices": [index] if target.type == "cuda" else 1, "strategy": "auto"}
        # Unused parameters: frozen parts have no gradients, and buckets that DDP may not
        # rebuild are summed in one order, on the first step after a resume as on any other.
        # Buffers: validation must not communicate; the module evens them out (SegmentationModule).
        strategy = DDPStrategy(
            cluster_environment=self.environment,
            find_unused_parameters=True,
            broadcast_buffers=False,
            process_group_backend="nccl" if target.type == "cuda" else "gloo",
            timeout=PATIENCE,
        )
        return {
            "devices": self.devices,
            "num_nodes": self.nodes,
            "strategy": strategy,
            "sync_batchnorm": synchronised and target.type == "cuda",
        }


class RequireSize(Callback):
    """Refuses to train with another number of processes than ``launch`` says, whoever started them."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size != self.launch.n_processes:
            raise UserError(
                f"--devices {self.launch.devices} --nodes {self.launch.nodes}",
                expected=f"{self.launch.n_processes} processes",
                found=f"{trainer.world_size} that train together",
                remedy="start them as docs/clusters.md says",
            )


def find_launch(devices: int, nodes: int, variables: Mapping[str, str] | None = None) -> Launch:
    """The place of this process among ``devices`` on each of ``nodes``, from the environment ``variables``.

    Raises :class:`UserError` when torchrun or SLURM started another number of processes
    than asked for, somebody else several, or nobody the processes of the other machines.
    """
    variables = os.environ if variables is None else variables
    asked = devices * nodes
    _refuse_others(variables, devices, nodes)
    for name, count, here, kind in (
        ("torchrun", _torchrun_size(variables), "LOCAL_WORLD_SIZE", TorchElasticEnvironment),
        ("SLURM", _slurm_size(variables), "SLURM_NTASKS_PER_NODE", SLURMEnvironment),
    ):
        if count is None:
            continue
        _require_size(name, count, asked, variables.get(here), devices, nodes)
        if asked == 1:
            return Launch()
        if kind is SLURMEnvironment:
            _require_srun(variables, count)
            # Lightning would requeue with a checkpoint of its own; --resume goes on exactly.
            environment: ClusterEnvironment = SLURMEnvironment(auto_requeue=False)
            rank = int(variables["SLURM_PROCID"])
        else:
            environment, rank = TorchElasticEnvironment(), int(variables["RANK"])
        return Launch(devices=devices, nodes=nodes, rank=rank, environment=environment)
    if asked == 1:
        return Launch()
    _require_meeting_point(variables, nodes)
    local, node = int(variables.get("LOCAL_RANK", 0)), int(variables.get("NODE_RANK", 0))
    return Launch(
        devices=devices,
        nodes=nodes,
        rank=node * devices + local,
        is_child=local > 0,
        environment=LightningEnvironment(),
    )


def require_devices(launch: Launch, target: torch.device, name: str) -> None:
    """Refuse more GPUs than the machine has, and a single one named for several processes."""
    if launch.n_processes == 1 or target.type != "cuda":
        return
    there = torch.cuda.device_count()
    if target.index is not None or launch.devices > there:
        raise UserError(
            f"--devices {launch.devices}",
            expected=f"at most the {there} GPUs of this machine, and --device cuda for several",
            found=f"--device {name}",
            remedy="lower --devices, or see ct-attn doctor",
        )


def require_norms(network: nn.Module, launch: Launch, target: torch.device, *, synchronised: bool) -> None:
    """Refuse batch normalisation over several processes' patches where torch has none: on the CPU."""
    if launch.n_processes == 1 or target.type == "cuda" or not synchronised:
        return
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        raise UserError(
            f"--devices {launch.devices} on the CPU",
            expected="a network without batch normalisation, which is synchronised on GPUs only",
            found="batch normalisation",
            remedy="--set network.norm=instance (or group), or --set training.sync_batch_norm=false, "
            "with which each process normalises its own patches",
        )


def follow_parent(launch: Launch) -> None:
    """End a process that Lightning started as soon as the first one is gone, however it went."""
    if not launch.is_child:
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def lost_another(error: BaseException) -> bool:
    """Whether ``error`` says that another process no longer answers."""
    dist_error = getattr(distributed, "DistError", None)  # not there where torch is built without
    if dist_error is not None and isinstance(error, dist_error):
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and ("gloo/" in words or "by peer" in words)


def leave_with_others(launch: Launch, error: BaseException) -> NoReturn:
    """End because another process did: the first one says so, the others go in silence.

    They leave with code 0: with another one, Lightning's watch would kill the first
    process before it has said what happened.
    """
    if not launch.is_first:
        raise SystemExit(0) from error
    raise UserError(
        f"a training of {launch.n_processes} processes",
        expected="all of them to the end",
        found="one that ended before",
        remedy="see what it said, then go on with --resume",
    ) from error


def _torchrun_size(variables: Mapping[str, str]) -> int | None:
    return int(variables["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in variables else None


def _refuse_others(variables: Mapping[str, str], devices: int, nodes: int) -> None:
    """Refuse several processes that neither torchrun, SLURM nor Lightning started.

    Each of them would think that it is the first. Of several machines, somebody may start
    one process on each, and tell it the meeting point. What srun starts may be told MPI's
    size or a WORLD_SIZE too, which is then SLURM's.
    """
    if "TORCHELASTIC_RUN_ID" in variables:
        return
    known = {0, 1, _step_size(variables)}
    one_each = {nodes} if {"MASTER_ADDR", "NODE_RANK"} <= set(variables) else set()
    for name in _MPI_SIZES:
        if (count := _number(variables, name)) not in known | one_each:
            raise _foreign(f"{count} of mpirun's ({name})", devices, nodes)
    # Lightning's children have no RANK.
    ours = {devices * nodes} if "RANK" not in variables else set()
    if (count := _number(variables, "WORLD_SIZE")) not in known | ours:
        raise _foreign(f"{count} by WORLD_SIZE", devices, nodes)


def _step_size(variables: Mapping[str, str]) -> int:
    """How many processes srun started together with this one; 0 where it did not start it."""
    return _number(variables, "SLURM_STEP_NUM_TASKS") if "SLURM_STEP_ID" in variables else 0


def _number(variables: Mapping[str, str], name: str) -> int:
    text = variables.get(name, "")
    return int(text) if text.isdecimal() else 0


def _foreign(found: str, devices: int, nodes: int) -> UserError:
    return UserError(
        f"--devices {devices} --nodes {nodes}",
        expected="processes started by srun, torchrun or ct-attn itself",
        found=found,
        remedy="start them as docs/clusters.md says, or unset what is left of another program",
    )


def _slurm_size(variables: Mapping[str, str]) -> int | None:
    """The number of processes that SLURM starts; None outside of it, and in a shell inside of it.

    A shell is told by the job's name, unless srun started several: then it is none.
    """
    if (started := _step_size(variables)) > 1:
        return started
    if variables.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    count = int(variables.get("SLURM_NTASKS", 1))
    return count if count > 1 else None  # a single task may start its processes itself


def _require_size(name: str, count: int, asked: int, here: str | None, devices: int, nodes: int) -> None:
    if count != asked or (here is not None and here.isdigit() and int(here) != devices):
        per_node = f" ({here} on this machine)" if here else ""
        raise UserError(
            f"--devices {devices} --nodes {nodes}",
            expected=f"{asked} processes",
            found=f"{count} started by {name}{per_node}",
            remedy=f"start {devices} processes on each of {nodes} machines, or mend --devices and --nodes",
        )


def _require_srun(variables: Mapping[str, str], count: int) -> None:
    if "SLURM_STEP_ID" not in variables:
        raise UserError(
            "ct-attn train",
            expected=f"{count} processes started by srun",
            found="a job script that starts one",
            remedy="write srun in front of ct-attn (docs/clusters.md)",
        )
    if "SLURM_NTASKS_PER_NODE" not in variables:
        raise UserError(
            "SLURM", expected="--ntasks-per-node", found="--ntasks alone", remedy="see docs/clusters.md"
        )


def _require_meeting_point(variables: Mapping[str, str], nodes: int) -> None:
    if nodes > 1 and not {"MASTER_ADDR", "NODE_RANK"} <= set(variables):
        raise UserError(
            f"--nodes {nodes}",
            expected="processes on every machine, started by srun or torchrun",
            found="this one alone",
            remedy="see docs/clusters.md",
        )
