from __future__ import annotations

import subprocess
import sys

import pytest

from ct_attn.inference.backends.openvino_backend import best_precision, is_installed
from tests.unit.inference.models import saved

pytestmark = pytest.mark.skipif(
    not is_installed(), reason="OpenVINO is not installed: pip install ct-attn[cpu]"
)

#: A Python handler runs on the stack for signals that the first thread has.
LET_GO_IN_A_THREAD = """
import signal, subprocess, sys, threading
from pathlib import Path
from ct_attn.inference.backends.openvino_backend import OpenVinoBackend, best_precision
from ct_attn.model_file import read_model_file

signal.signal(signal.SIGCHLD, lambda number, frame: None)
held = [OpenVinoBackend(read_model_file(Path(sys.argv[1])), best_precision(), print)]
held[0].ready((1, 1, 16, 16, 8))
letting_go = threading.Thread(target=held.clear)
letting_go.start()
letting_go.join()
subprocess.run([sys.executable, "-c", "pass"], check=True)
print("alive")
"""


def test_signals_arrive_after_a_backend_is_let_go_in_another_thread(tmp_path):
    model = saved(tmp_path)
    words = [sys.executable, "-c", LET_GO_IN_A_THREAD, model]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("alive\n")


def test_the_best_precision_is_one_that_the_processor_has():
    assert best_precision() in ("fp32", "bf16")
