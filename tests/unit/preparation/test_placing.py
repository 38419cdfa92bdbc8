from __future__ import annotations

import numpy as np
import pytest

from ct_attn.datasets.alignment import AS_STATED, Flip
from ct_attn.datasets.source import CodeTable, LabelFile
from ct_attn.errors import UserError
from ct_attn.preparation.placing import agreement, place_label
from tests.downloads import PANCREAS, patient, recoded, stamped, write_label

TABLE = CodeTable(organs={1: "pancreas"})


def label_file(path, labels, affine, *, trusted=False):
    write_label(path, labels, affine)
    return LabelFile(path=path, table=TABLE, header_is_trusted=trusted)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "label.nii.gz"


@pytest.fixture
def pancreas():
    return recoded(patient(2)[1], {PANCREAS: 1})


def test_the_image_decides_where_the_header_is_not_trusted(path, pancreas):
    volume, _ = patient(2)
    placed = place_label(label_file(path, pancreas[:, ::-1], volume.grid.affine), volume)
    assert (placed.flip, placed.decided_by) == (Flip(front_back=True), "image")
    assert np.array_equal(placed.labels, pancreas)
    assert len(placed.evidence) == 8


def test_a_trusted_header_in_any_order_of_axes_is_followed(path, pancreas):
    volume, _ = patient(2)
    turn = np.array([[0, 0, -1, volume.grid.shape[0] - 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    turned = pancreas[::-1].transpose(1, 2, 0)
    placed = place_label(label_file(path, turned, volume.grid.affine @ turn, trusted=True), volume)
    assert (placed.flip, placed.decided_by) == (AS_STATED, "header")
    assert np.array_equal(placed.labels, pancreas)


def test_a_trusted_header_that_the_image_speaks_against_is_refused(path, pancreas):
    volume, _ = patient(2)
    file = label_file(path, pancreas[::-1], volume.grid.affine, trusted=True)
    with pytest.raises(UserError, match=r"as its header says.*flip left-right"):
        place_label(file, volume)


def test_doubt_is_enough_to_refuse_an_untrusted_header_and_not_a_trusted_one(path, pancreas):
    volume, _ = patient(2)
    pancreas[:] = 0
    pancreas[30:34, 20:24, 20:24] = 1
    with pytest.raises(UserError, match="that one flip fits"):
        place_label(label_file(path, pancreas, volume.grid.affine), volume)
    placed = place_label(label_file(path, pancreas, volume.grid.affine, trusted=True), volume)
    assert placed.decided_by == "header"


def test_the_users_word_goes_before_all_evidence(path, pancreas):
    volume, _ = patient(2)
    said = Flip(up_down=True)
    placed = place_label(label_file(path, pancreas, volume.grid.affine), volume, said)
    assert (placed.flip, placed.decided_by) == (said, "user")
    assert np.array_equal(placed.labels, pancreas[:, :, ::-1])


def test_another_size_another_place_or_nothing_is_refused(path, pancreas):
    volume, _ = patient(2)
    with pytest.raises(UserError, match="the scan's size"):
        place_label(label_file(path, pancreas[:, :, 1:], stamped(volume)), volume)
    with pytest.raises(UserError, match="the grid of the scan"):
        place_label(label_file(path, pancreas, stamped(volume), trusted=True), volume)
    with pytest.raises(UserError, match="an empty one"):
        place_label(label_file(path, 0 * pancreas, stamped(volume)), volume)


def test_two_labels_of_an_organ_must_agree(path, pancreas):
    file = LabelFile(path=path, table=TABLE)
    assert agreement(pancreas, pancreas, file) == {"pancreas": 1.0}
    assert agreement(pancreas, 0 * pancreas, file) == {}
    half = pancreas.copy()
    half[: np.argwhere(pancreas)[:, 0].min() + 3] = 0
    assert 0.5 < agreement(pancreas, half, file)["pancreas"] < 1
    with pytest.raises(UserError, match=r"DSC 0\.\d+.*of this case"):
        agreement(pancreas, np.roll(pancreas, 8, axis=2), file)
