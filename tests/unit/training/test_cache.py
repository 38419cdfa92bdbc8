"""The cache of prepared cases: made once, keyed by what decides, found damaged, made anew."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from ct_attn.errors import UserError
from ct_attn.labels import DISK_SCHEME, PAPER_SCHEME, LabelScheme
from ct_attn.preprocessing import PreprocessingConfig
from ct_attn.training import cache
from ct_attn.training.cache import FOLDER_NAME, choose_folder, fill
from ct_attn.training.cases import loading
from tests.unit.training.test_cases import CONFIG, write_case


def filled(files, folder, *, preprocessing=CONFIG, target=PAPER_SCHEME):
    (case,) = fill([files], folder, source=DISK_SCHEME, target=target, preprocessing=preprocessing)
    return case


@pytest.fixture
def files(tmp_path):
    (tmp_path / "scans").mkdir()
    return write_case(tmp_path / "scans")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def made(monkeypatch):
    """The names of the entries that are written."""
    names = []
    write = cache.write_entry

    def count(image, label, file, **how):
        names.append(file.name)
        write(image, label, file, **how)

    monkeypatch.setattr(cache, "write_entry", count)
    return names


def test_an_entry_holds_what_preparing_gives(files, folder):
    mapped = filled(files, folder).open()
    prepared = loading(DISK_SCHEME, CONFIG, PAPER_SCHEME)(files)
    assert torch.equal(mapped.image, prepared["image"][0])
    assert torch.equal(mapped.label, prepared["label"][0])
    assert mapped.runs.present == prepared["label"].unique().tolist()
    assert filled(files, folder).known == tuple(prepared["known"].tolist())


def test_a_case_is_prepared_once(files, folder, made):
    assert filled(files, folder) == filled(files, folder)
    assert len(made) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"preprocessing": PreprocessingConfig(spacing_mm=(4, 4, 4), hu_window=(-100, 201))},
        {"target": LabelScheme.from_targets({"spleen": ("spleen",)})},
    ],
    ids=["preprocessing", "targets"],
)
def test_another_config_makes_another_entry_and_leaves_the_first(files, folder, made, change):
    first, other = filled(files, folder), filled(files, folder, **change)
    assert first.file != other.file
    assert len(made) == 2
    filled(files, folder)
    assert len(made) == 2


def test_a_changed_label_file_is_prepared_anew(files, folder, made):
    filled(files, folder)
    write_case(files.label.parent, labels=np.ones((24, 20, 12), dtype=np.uint8))
    assert set(filled(files, folder).open().label.unique().tolist()) == {1}
    assert len(made) == 2


def test_what_a_case_labels_is_not_taken_from_the_entry(files, folder, made):
    half = type(files)(case_id="a", image=files.image, label=files.label, labelled_organs=("pancreas",))
    assert filled(files, folder).known == (True, True, True, True)
    assert filled(half, folder).known == (True, True, False, False)
    assert len(made) == 1


def test_processes_begin_with_other_cases_and_end_with_all_in_order(tmp_path, folder):
    files = []
    for name in "abcd":
        (tmp_path / name).mkdir()
        made = write_case(tmp_path / name)
        files.append(type(made)(case_id=name, image=made.image, label=made.label))
    how = {"source": DISK_SCHEME, "target": PAPER_SCHEME, "preprocessing": CONFIG}
    began = []
    for rank in range(3):
        order = []

        def note(order=order, rank=rank):
            order.append(sorted(entry.name[0] for entry in (folder / str(rank)).iterdir()))

        cached = fill(files, folder / str(rank), share=(rank, 3), on_case=note, **how)
        assert [case.case_id for case in cached] == list("abcd")
        began.append(order[0][0])
    assert began == ["a", "b", "c"]


def flipped_bit(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:4],
        lambda content: b"",
        lambda content: flipped_bit(content, -1),
        lambda content: flipped_bit(content, len(content) // 2),
        lambda content: flipped_bit(content, 0),
        lambda content: content.replace(b"label", b"lapel"),
        lambda content: content.replace(b'"key":"', b'"key":"0'),
    ],
    ids=["cut", "longer", "cut in its header", "empty", "last bit", "middle bit", "length", "name", "key"],
)
def test_a_damaged_entry_is_made_anew(files, folder, made, damage):
    case = filled(files, folder)
    whole = case.open().image.clone()
    case.file.write_bytes(damage(case.file.read_bytes()))
    assert filled(files, folder) == case
    assert len(made) == 2
    assert torch.equal(case.open().image, whole)


def test_an_interrupted_filling_leaves_only_whole_entries(files, folder, monkeypatch):
    def stop(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "save_file", stop)
        with pytest.raises(KeyboardInterrupt):
            filled(files, folder)
    assert list(folder.iterdir()) == []
    filled(files, folder).open()


def test_an_entry_lost_while_training_is_one_line(files, folder):
    case = filled(files, folder)
    case.file.unlink()
    with pytest.raises(UserError, match="--resume"):
        case.open()


def test_a_full_disk_is_one_line_and_leaves_nothing(files, folder, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "save_file", full)
    with pytest.raises(UserError, match="No space left on device; make room or choose another --cache"):
        filled(files, folder)
    assert list(folder.iterdir()) == []


def fill_often(files, folder):
    for _ in range(5):
        for entry in folder.glob("[!.]*.safetensors"):  # whole ones: another's partial file is its own
            entry.unlink(missing_ok=True)
        filled(files, folder)


def test_processes_that_fill_the_same_folder_do_not_disturb_each_other(files, folder):
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=fill_often, args=(files, folder)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    names = [entry.name for entry in folder.iterdir()]
    assert len(names) == 1
    assert filled(files, folder).open().runs.present == [0, 1, 3]


def test_the_cache_lies_beside_the_manifest(tmp_path):
    assert choose_folder(tmp_path / "manifest.json", otherwise=tmp_path / "run") == tmp_path / FOLDER_NAME
    assert not list((tmp_path / FOLDER_NAME).iterdir())


def test_where_that_cannot_be_written_it_lies_elsewhere(tmp_path):
    (tmp_path / FOLDER_NAME).write_text("a file takes its place")
    assert choose_folder(tmp_path / "manifest.json", otherwise=tmp_path / "run") == tmp_path / "run"


READ_ALL = """
import resource, sys
import torch
from pathlib import Path
from ct_attn.training.cache import CachedCase
def read(file):
    mapped = CachedCase(case_id="a", file=Path(file), known=(True, True)).open()
    return float(mapped.image[10:20, 10:20, 10:20].float().sum()) + mapped.runs.voxel(1, 5)
read(sys.argv[1])  # libraries set up what they keep
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(20):
    read(sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_mapped_case_costs_memory_only_where_it_is_touched(tmp_path):
    files = [tmp_path / "small.safetensors", tmp_path / "big.safetensors"]
    for file, side in zip(files, (20, 400), strict=True):
        label = torch.zeros(200, 200, side, dtype=torch.uint8)
        label[5:, 5:, 5:] = 1
        cache.write_entry(
            label.to(torch.float16), label, file, key=file.stem, n_classes=2, spacing_mm=(1.0, 1.0, 1.0)
        )
    command = [sys.executable, "-c", READ_ALL, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert int(done.stdout) < 8_000  # kB, of an entry of 48,000
