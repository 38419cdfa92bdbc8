from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ct_attn.inference.backends import cache
from ct_attn.inference.backends.cache import FOLDER_NAME, cache_folder, forget_oldest, processor, short
from ct_attn.model_file import read_model_file
from tests.unit.inference.models import saved


@pytest.fixture
def model(tmp_path):
    return read_model_file(saved(tmp_path / "model"))


def test_what_is_made_of_a_model_lies_beside_it(model, tmp_path):
    assert cache_folder(model) == tmp_path / "model" / FOLDER_NAME


def test_beside_a_model_that_may_not_be_written_to_nothing_is_put(model, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    folder = cache_folder(model)
    assert folder.is_relative_to(tmp_path / "home")
    assert cache_folder(replace(model, digest="sha256:another")) != folder


def test_a_folder_that_is_there_already_is_asked_itself(model, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: bool(asked.append(path)) or True)
    (tmp_path / "model" / FOLDER_NAME).mkdir()
    assert cache_folder(model) == tmp_path / "model" / FOLDER_NAME
    assert asked == [tmp_path / "model" / FOLDER_NAME]


def test_names_fit_into_file_names_and_tell_texts_apart():
    names = {short(text) for text in ("", "a", "b", "a/b\n" * 1000)}
    assert len(names) == 4
    assert all(name.isalnum() and len(name) == 16 for name in names)


def test_the_processor_has_one_name_that_depends_on_its_cores(monkeypatch):
    before = processor()
    assert before == processor()
    processor.cache_clear()
    monkeypatch.setattr(cache.os, "cpu_count", lambda: 1000)
    other = processor()
    processor.cache_clear()
    assert other != before


def test_what_was_used_longest_ago_is_forgotten_first(tmp_path):
    files = [tmp_path / f"{number}.blob" for number in range(cache.MOST_COMPILED + 3)]
    for age, file in enumerate(files):
        file.write_bytes(b"")
        os.utime(file, (1_000_000 - age, 1_000_000 - age))
    (tmp_path / "network.xml").write_bytes(b"")
    forget_oldest(tmp_path, "*.blob")
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {file.name for file in files[: cache.MOST_COMPILED]} | {"network.xml"}
