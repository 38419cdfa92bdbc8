"""``ct-attn`` in this process: as the installed command, without the seconds of starting it."""

from __future__ import annotations

import contextlib
import io
import sys
from subprocess import CompletedProcess
from unittest.mock import patch

from ct_attn.cli import main


def ct_attn(*arguments: object) -> CompletedProcess[str]:
    """What ``ct-attn ARGUMENTS`` prints and its exit code. An error that is no user's is raised."""
    words = ["ct-attn", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), patch.object(sys, "argv", words):
        try:
            main()
        except SystemExit as left:
            code = left.code or 0
    return CompletedProcess(words, int(str(code)), out.getvalue(), err.getvalue())
