from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ct_attn.training.data import Batches, WholeCases
from tests.cohorts import tiny_recipe
from tests.unit.training.cached_cases import SPACING_MM, cached_case


@pytest.fixture
def cases(tmp_path):
    random = np.random.default_rng(0)
    return [
        cached_case(
            tmp_path,
            image=random.random((20, 18, 12 + number)),
            label=random.integers(0, 4, (20, 18, 12 + number)),
            known=(True, True, number == 0, True),
            case_id=f"case{number}",
        )
        for number in range(5)
    ]


def test_a_whole_case_is_read_as_it_was_kept(cases):
    items = WholeCases(cases)
    assert len(items) == 5
    found = items[3]
    mapped = cases[3].open()
    assert (found["number"], found["case_id"]) == (3, "case3")
    assert found["image"].shape == found["label"].shape == (1, 20, 18, 15)
    assert (found["image"].dtype, found["label"].dtype) == (torch.float16, torch.uint8)
    assert torch.equal(found["image"][0], mapped.image)
    assert torch.equal(found["label"][0], mapped.label)
    assert found["known"].tolist() == [True, True, False, True]
    assert found["spacing_mm"].tolist() == list(SPACING_MM)


def batches(cases, *, epoch=0, **process):
    recipe = tiny_recipe("training.patch_size=[16, 16, 8]", "training.workers=0")
    made = Batches(recipe, cases[:3], cases, **process)
    made.trainer = SimpleNamespace(current_epoch=epoch)
    return made


@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_processes_validate_every_case_once_between_them(cases, n_processes):
    seen = [
        int(batch["number"])
        for rank in range(n_processes)
        for batch in batches(cases, rank=rank, n_processes=n_processes).val_dataloader()
    ]
    assert sorted(seen) == [0, 1, 2, 3, 4]


def images(made):
    return torch.cat([batch["image"].float() for batch in made.train_dataloader()])


def test_patches_are_others_in_every_epoch_and_process_and_the_same_again(cases):
    first = images(batches(cases))
    assert first.shape[1:] == (1, 16, 16, 8)
    assert torch.equal(images(batches(cases)), first)
    assert not torch.equal(images(batches(cases, epoch=1)), first)
    halves = [images(batches(cases, rank=rank, n_processes=2)) for rank in (0, 1)]
    assert not torch.equal(*halves)
