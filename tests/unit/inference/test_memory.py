from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from ct_attn.errors import UserError
from ct_attn.inference.memory import need, require_memory
from ct_attn.inference.options import InferenceOptions
from ct_attn.inference.predictor import Predictor
from ct_attn.labels import ORGANS
from ct_attn.network.configs import AttentionUNetConfig, GuidedAttentionConfig, SlicesConfig, UNetConfig
from ct_attn.preprocessing import PreprocessingConfig
from ct_attn.recipe import InferenceConfig
from ct_attn.training_config import TrainingConfig
from ct_attn.volume import Grid, Volume
from tests.unit.inference.models import Fake, recipe, saved

MIB = 1 << 20
SCAN = Grid(shape=(300, 300, 80), affine=np.diag([1.0, 1.0, 2.0, 1.0]))


def needed(scan=SCAN, network=None, precision="fp32", n_classes=5, joins_maps=True):
    return need(scan, scan, [network or UNetConfig()], n_classes, precision, joins_maps=joins_maps)


def test_the_need_grows_with_the_scan_the_windows_the_classes_the_precision_and_copies():
    larger = Grid(shape=(300, 300, 160), affine=SCAN.affine)
    assert needed(larger).fixed > needed().fixed
    assert needed(larger).per_window_voxel == needed().per_window_voxel
    assert needed(n_classes=9).per_layer_voxel > needed().per_layer_voxel
    assert needed(joins_maps=False).per_window_voxel < needed().per_window_voxel
    assert needed(precision="bf16").per_window_voxel < needed().per_window_voxel
    assert needed(network=UNetConfig(widths=(8, 16))).per_window_voxel < needed().per_window_voxel
    assert needed(network=GuidedAttentionConfig()).per_window_voxel > 0


def test_of_several_networks_the_one_that_takes_most_counts():
    small, large = UNetConfig(widths=(8, 16)), UNetConfig()
    for networks in ([small, large], [large, small]):
        assert need(SCAN, SCAN, networks, 5, "fp32", joins_maps=True) == needed(network=large)


def test_a_layer_of_windows_is_held_as_wide_as_the_box_and_as_deep_as_a_window():
    found = needed()
    one = found.of((32, 32, 16), (32, 32, 400)) - found.fixed
    assert one == 32 * 32 * 16 * (found.per_window_voxel + found.per_layer_voxel)
    assert found.of((32, 32, 16), (20, 20, 20)) - found.fixed == one  # a window reaches beyond the box
    four = found.of((32, 32, 16), (64, 64, 400)) - found.fixed
    assert four == 32 * 32 * 16 * (found.per_window_voxel + 4 * found.per_layer_voxel)


def test_too_little_memory_is_refused_with_what_is_needed():
    require_memory(64 * MIB, None)
    require_memory(64 * MIB, 64 * MIB)
    for taken in (65 * MIB, 64 * MIB + 1):  # what is named is enough
        with pytest.raises(UserError, match="--memory 64 MiB: expected at least 65 MiB"):
            require_memory(taken, 64 * MIB)
    backend = Fake(lambda windows: np.concatenate([-windows, windows], axis=1))
    predictor = Predictor([backend], recipe(), InferenceOptions(memory_bytes=64 * MIB))
    with pytest.raises(UserError, match=r"--memory 64 MiB: expected at least \d+ MiB"):
        predictor.estimate(SCAN)


def test_less_memory_makes_smaller_windows():
    def most_voxels(memory_bytes):
        backend = Fake(lambda windows: np.concatenate([-windows, windows], axis=1))
        predictor = Predictor([backend], recipe(), InferenceOptions(memory_bytes=memory_bytes))
        return predictor.estimate(SCAN)

    plenty, little = most_voxels(None), most_voxels(420 * MIB)
    assert little < plenty
    assert little <= 420 * MIB


def test_attention_is_planned_for_torch_in_fp32_whatever_predicts(tmp_path, monkeypatch):
    planned = []

    def watched(*arguments, **keywords):
        planned.append((arguments[-1], keywords["joins_maps"]))
        return need(*arguments, **keywords)

    monkeypatch.setattr("ct_attn.inference.predictor.need", watched)
    predictor = Predictor.load(saved(tmp_path), InferenceOptions(device="cpu", backend="torch"))
    predictor.backends = [Fake(None)]
    predictor.backends[0].precision, predictor.backends[0].joins_maps = "bf16", False
    grid = Grid(shape=(20, 20, 10), affine=np.diag([1.5, 1.5, 2.0, 1.0]))
    predictor.attention(Volume(hu=np.zeros(grid.shape, dtype=np.int16), grid=grid))
    assert planned == [("fp32", True)]


MEASURE = """
import json, sys
from pathlib import Path
import numpy as np
from ct_attn.inference.options import InferenceOptions
from ct_attn.inference.predictor import Predictor
from ct_attn.volume import Grid, Volume

folder, backend, memory, shape = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
options = InferenceOptions(device="cpu", backend=backend, memory_bytes=memory, precision="fp32")
predictor = Predictor.load(folder, options)
grid = Grid(shape=shape, affine=np.diag([1.5, 1.5, 2.0, 1.0]))
hu = np.random.default_rng(0).integers(0, 90, grid.shape, dtype=np.int16)
predictor.predict(Volume(hu=hu, grid=grid))
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps([peak, predictor.estimate(grid)]))
"""


def measured(folder, backend, memory, shape):
    """The peak of a prediction in a process of its own, and what was expected."""
    command = [sys.executable, "-c", MEASURE, str(folder), backend, str(memory), json.dumps(shape)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_memory_is_bounded_whatever_the_number_of_slices_of_any_plane(tmp_path, plane):
    across = {"axial": 2, "coronal": 1}[plane]
    patch, spacing_mm = [64, 64, 64], [1.5, 1.5, 2.0]
    patch[across], spacing_mm[across] = 1, None
    saved(
        tmp_path,
        targets={organ: (organ,) for organ in ORGANS},
        network=AttentionUNetConfig(dims=2, widths=(2, 3, 4)),
        inference=InferenceConfig(overlap=0.0),
        slices=SlicesConfig(plane=plane, neighbours=3, at_a_time=4),
        preprocessing=PreprocessingConfig(spacing_mm=tuple(spacing_mm), hu_window=(0, 100)),
        training=TrainingConfig(patch_size=tuple(patch)),
    )

    def peak(slices):
        shape = [128, 128, 128]
        shape[across] = slices
        return measured(tmp_path, "torch", 8192 * MIB, shape)[0]

    few, many = peak(100), peak(400)
    grown = 300 * 128 * 128 * (2 + 1 + 9)  # HU, mask, and the image on the working grid
    # What is summed and restored of five classes would be four times as much, were it held of all slices.
    assert many - few < 2 * grown


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_estimate_is_the_truth_and_memory_is_bounded_whatever_the_number_of_slices(tmp_path):
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install ct-attn[cpu]")
    saved(tmp_path, network=AttentionUNetConfig(widths=(8, 16, 32)))

    def peak_and_estimate(memory, slices):
        return measured(tmp_path, "openvino", memory, (220, 200, slices))

    peak_and_estimate(700 * MIB, 40)  # converts
    for memory in (420 * MIB, 900 * MIB):
        peak, estimate = peak_and_estimate(memory, 100)
        assert peak <= memory
        assert 0.55 < peak / estimate < 1.15
    short, long = (peak_and_estimate(700 * MIB, slices)[0] for slices in (120, 240))
    grown = 120 * 220 * 200 * (2 + 1 + 9)  # HU, mask, and the image on the working grid
    assert long - short < 1.3 * grown
