"""Memory kept from step to step, seen by the pages a process faults in."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from ct_attn.heap import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def step():
    return [np.ones(2**20 + n) for n in range(8)]  # 8 MB each

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

step(), step()
before = faults()
for _ in range(4):
    blocks = np.ones(2**23)  # 64 MB, more than any threshold of glibc's
    del blocks
    step()
print(faults() - before)
"""


def faults(how: str) -> int:
    ran = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc")
def test_freed_memory_is_used_again_without_new_pages() -> None:
    assert faults("kept") < 0.25 * faults("as usual")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc")
def test_no_memory_is_taken_before_it_is_used() -> None:
    program = (
        "from ct_attn.heap import keep_freed_memory; keep_freed_memory(); "
        "print(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 200 * 1024  # of the gigabytes set aside


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc")
def test_a_limit_on_addresses_is_no_error() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)); "
        "from ct_attn.heap import keep_freed_memory; print(keep_freed_memory())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "True"
