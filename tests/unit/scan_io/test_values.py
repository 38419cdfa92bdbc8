"""Numbers block by block: all that is promised and nothing more, in little memory."""

from __future__ import annotations

import io
import os
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from ct_attn.errors import UserError
from ct_attn.scan_io.limits import one_volume, require_file, require_stored_size, unpacked
from ct_attn.scan_io.values import gather, read_blocks, read_hu, require_finite, scaled


class Drip(io.BytesIO):
    """A stream that hands out three bytes at a time, as a pipe may."""

    def read(self, size=-1):
        return super().read(min(size, 3))


def test_a_stream_that_drips_gives_all_numbers():
    numbers = np.arange(100, dtype="<i4")
    assert np.array_equal(
        np.concatenate(list(read_blocks(Drip(numbers.tobytes()), 100, numbers.dtype))), numbers
    )


@pytest.mark.parametrize(("extra", "complaint"), [(-1, "fewer"), (1, "more")])
def test_another_length_is_no_volume(extra, complaint):
    content = bytes(24 + extra)
    with pytest.raises(ValueError, match=complaint):
        read_hu(io.BytesIO(content), (2, 3, 2), np.dtype("i2"))


def test_the_first_index_runs_fastest():
    hu = read_hu(io.BytesIO(np.arange(24, dtype="<i2").tobytes()), (2, 3, 4), np.dtype("<i2"))
    assert hu[1, 0, 0] == 1
    assert hu[0, 1, 0] == 2
    assert hu[0, 0, 1] == 6


@pytest.mark.parametrize(
    ("blocks", "dtype"),
    [
        ([np.int32([1, 2]), np.float64([3, 4])], np.int16),
        ([np.int32([1, 2]), np.int32([3, 40_000])], np.float32),
        ([np.int32([1, 2]), np.float64([3, 4.5])], np.float32),
        ([np.float32([1, 2]), np.float32([3, 4])], np.float32),
    ],
)
def test_int16_where_all_are_whole_and_fit(blocks, dtype):
    hu = gather(blocks, (1, 2, 2))
    assert hu.dtype == dtype
    assert hu.T.ravel().tolist() == np.concatenate(blocks).tolist()


def test_scaling_keeps_integers_exact():
    assert scaled(np.uint16([1024, 64512]), 1, -1024).tolist() == [0, 63488]
    assert scaled(np.float32([0.5]), 1, 0).dtype == np.float32
    assert scaled(np.int64([2**40 + 1]), 1, -(2.0**40)).tolist() == [1]


def test_not_finite_is_counted():
    hu = np.zeros((3, 4, 5), np.float32, order="F")
    hu[0, 1:3, 2] = np.nan
    with pytest.raises(UserError, match="2 voxels of NaN or infinity"):
        require_finite(hu, Path("scan"))


def test_an_inflated_stream_is_read_to_its_end_and_no_further():
    packed = zlib.compress(bytes(10_000))
    whole = unpacked(io.BytesIO(packed), "zlib")
    assert sum(len(block) for block in iter(lambda: whole.read(100), b"")) == 10_000
    for wrong in (packed[:-1], packed + b"x"):
        stream = unpacked(io.BytesIO(wrong), "zlib")
        with pytest.raises((EOFError, ValueError)):
            list(iter(lambda stream=stream: stream.read(4096), b""))


def test_a_zlib_bomb_is_left_packed():
    stream = unpacked(io.BytesIO(zlib.compress(bytes(50 << 20))), "zlib")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than the 1,000 numbers"):
            read_hu(stream, (10, 10, 10), np.dtype("i2"))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_sizes_are_judged_before_reading(tmp_path):
    path = tmp_path / "scan"
    path.write_bytes(bytes(1000))
    require_stored_size(path, 1000, packed=False)
    require_stored_size(path, 1_000_000, packed=True)
    for promised, packed in ((999, False), (1001, False), (1_100_000, True)):
        with pytest.raises(UserError, match="as its header says"):
            require_stored_size(path, promised, packed=packed)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "scan.nii")
    with pytest.raises(UserError, match="no regular file"):
        require_file(tmp_path / "scan.nii", "NIfTI")


@pytest.mark.parametrize("dims", [(4, 5), (0, 4, 5), (4, -5, 6), (4, 5, 6, 2), (4, 5, 6, 1, 2), ()])
def test_what_is_no_single_volume(dims):
    with pytest.raises(UserError, match="one 3D volume"):
        one_volume(dims, Path("scan"), lambda note: None)
