"""Trainings that are killed with SIGKILL at chosen moments.

Run as a script, it imports everything once and then forks, for each line of standard
input, the processes of one ``ct-attn train``; so a kill costs no seconds of starting.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import ct_attn.train
from ct_attn import atomic, checkpoint, cli
from ct_attn.training import callbacks, module, state

ROOT = Path(__file__).resolve().parents[1]


class Driver:
    """The script, seen from a test: ``train`` gives the exit codes of the processes."""

    def __enter__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.script = subprocess.Popen(
            [sys.executable, "-m", "tests.killed_runs"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_):
        self.script.stdin.close()
        self.script.wait()
        self.script.stdout.close()

    def train(self, *arguments, processes=1, moment=None, kill_after_s=None, said=None):
        """Run ``ct-attn train ARGUMENTS``; ``moment`` is (what, number of the call, rank) to die at.

        ``kill_after_s``: all processes are killed from outside so many seconds after their start.
        ``said``: a file for what they print.
        """
        request = {
            "arguments": list(map(str, arguments)), "processes": processes, "moment": moment,
            "kill_after_s": kill_after_s, "said": None if said is None else str(said),
        }  # fmt: skip
        self.script.stdin.write(json.dumps(request) + "\n")
        self.script.stdin.flush()
        return json.loads(self.script.stdout.readline())


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_in(place, name, number, how):
    """Let the call ``number`` of ``place.name`` end with ``how``, which is given the true one."""
    true, seen = getattr(place, name), []

    def counted(*arguments, **keywords):
        seen.append(None)
        if len(seen) == number:
            how(true, *arguments, **keywords)
            die()
        return true(*arguments, **keywords)

    setattr(place, name, counted)


def at_once(true, *arguments, **keywords):
    """Before anything is done."""


def half(true, weights, file, **keywords):
    """With half of a file written."""
    true(weights, file, **keywords)
    Path(file).write_bytes(Path(file).read_bytes()[: Path(file).stat().st_size // 2])


def between_renames(true, *arguments, **keywords):
    """With the older state moved and the newer one not yet in its place."""
    Path.replace = lambda source, target: (os.rename(source, target), die())  # noqa: PTH104
    true(*arguments, **keywords)


def no_number_in(number):
    """Let the loss of the call ``number`` be none."""
    true, seen = module.supervised_loss, []

    def counted(*arguments):
        seen.append(None)
        return true(*arguments) * (float("nan") if len(seen) == number else 1)

    module.supervised_loss = counted


MOMENTS = {
    "no number": no_number_in,
    "batch": lambda n: die_in(module.SegmentationModule, "training_step", n, at_once),
    "validation": lambda n: die_in(module.SegmentationModule, "validation_step", n, at_once),
    "saving": lambda n: die_in(state._Stream, "write", n, lambda true, stream, data: true(stream, data[:9])),
    "renaming": lambda n: die_in(state, "write_state", n, between_renames),
    "after the state": lambda n: die_in(callbacks.SaveState, "_write_following", n, at_once),
    "the model": lambda n: die_in(checkpoint, "save_file", n, half),
    "the log": lambda n: die_in(atomic, "write_text", n, at_once),
}


def run(request, rank, port):
    """One process of a training, as torchrun would start it."""
    if request["processes"] > 1:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "RANK": str(rank), "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(request["processes"]), "LOCAL_WORLD_SIZE": str(request["processes"]),
        }  # fmt: skip
    if request["moment"] is not None:
        what, number, victim = request["moment"]
        if victim == rank:
            MOMENTS[what](number)
    sys.argv = ["ct-attn", "train", *request["arguments"]]
    if request["said"] is not None:
        os.dup2(os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.dup2(2, 1)  # standard output is the driver's
    cli.main()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def serve():
    for line in sys.stdin:
        request, port, children = json.loads(line), free_port(), []
        for rank in range(request["processes"]):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    run(request, rank, port)
                    code = 0
                except SystemExit as left:
                    code = left.code or 0
                finally:
                    sys.stderr.flush()
                    os._exit(code)
            children.append(child)
        if request["kill_after_s"] is not None:
            time.sleep(request["kill_after_s"])
            for child in children:  # one that has ended waits for waitpid, and keeps its number
                os.kill(child, signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    assert ct_attn.train
    serve()
