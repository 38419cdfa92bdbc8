"""The viewer's own parts."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files

from ct_attn.report.viewer import LICENCE_NAME, SCRIPT_NAME, viewer_parts

VENDOR = files("ct_attn.report").joinpath("vendor")


def test_the_vendored_script_is_the_released_one():
    record = json.loads(VENDOR.joinpath("VENDORED.json").read_text())
    script = VENDOR.joinpath(SCRIPT_NAME).read_bytes()
    assert record["file"] == SCRIPT_NAME
    assert hashlib.sha256(script).hexdigest() == record["sha256"]
    assert record["version"] in record["source"]


def test_its_licence_travels_with_it():
    record = json.loads(VENDOR.joinpath("VENDORED.json").read_text())
    assert (record["licence"], record["licence_file"]) == ("BSD-2-Clause", LICENCE_NAME)
    text = VENDOR.joinpath(LICENCE_NAME).read_text()
    assert text.startswith("BSD 2-Clause License\n\nCopyright (c) 2021, Niivue\n")
    assert "Redistributions in binary form must reproduce" in text


def test_without_cases_there_is_no_viewer():
    assert viewer_parts({}) is None
