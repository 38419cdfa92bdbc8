from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from ct_attn.errors import UserError
from ct_attn.inference.memory import MOST_WINDOW_VOXELS, need
from ct_attn.inference.options import InferenceOptions
from ct_attn.inference.predictor import Predictor
from ct_attn.network.configs import AttentionUNetConfig, GuidedAttentionConfig, UNetConfig
from ct_attn.volume import Grid, Volume
from tests.unit.inference.models import Fake, recipe, saved

MIB = 1 << 20
SCAN = Grid(shape=(300, 300, 80), affine=np.diag([1.0, 1.0, 2.0, 1.0]))


def needed(scan=SCAN, network=None, precision="fp32", n_classes=5, joins_maps=True):
    return need(scan, scan, network or UNetConfig(), n_classes, precision, joins_maps=joins_maps)


def test_the_need_grows_with_the_scan_the_windows_the_classes_the_precision_and_copies():
    larger = Grid(shape=(300, 300, 160), affine=SCAN.affine)
    assert needed(larger).fixed > needed().fixed
    assert needed(larger).per_window_voxel == needed().per_window_voxel
    assert needed(n_classes=9).per_window_voxel > needed().per_window_voxel
    assert needed(joins_maps=False).per_window_voxel < needed().per_window_voxel
    assert needed(precision="bf16").per_window_voxel < needed().per_window_voxel
    assert needed(network=UNetConfig(widths=(8, 16))).per_window_voxel < needed().per_window_voxel
    assert needed(network=GuidedAttentionConfig()).per_window_voxel > 0


def test_windows_fit_into_what_is_allowed():
    found = needed()
    for allowed in (found.fixed + 40 * MIB, found.fixed + 900 * MIB):
        voxels = found.windows_within(allowed, (16, 16, 16))
        assert allowed - found.per_window_voxel < found.of(voxels) <= allowed
    assert found.windows_within(None, (16, 16, 16)) == MOST_WINDOW_VOXELS


def test_too_little_memory_is_refused_with_what_is_needed():
    with pytest.raises(UserError, match=r"--memory 64 MiB: expected at least \d+ MiB"):
        needed().windows_within(64 * MIB, (16, 16, 16))


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

folder, memory, slices = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
options = InferenceOptions(device="cpu", backend="openvino", memory_bytes=memory, precision="fp32")
predictor = Predictor.load(folder, options)
grid = Grid(shape=(220, 200, slices), affine=np.diag([1.5, 1.5, 2.0, 1.0]))
hu = np.random.default_rng(0).integers(0, 90, grid.shape, dtype=np.int16)
predictor.predict(Volume(hu=hu, grid=grid))
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps([peak, predictor.estimate(grid)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_estimate_is_the_truth_and_memory_is_bounded_whatever_the_number_of_slices(tmp_path):
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install ct-attn[cpu]")
    saved(tmp_path, network=AttentionUNetConfig(widths=(8, 16, 32)))

    def peak_and_estimate(memory, slices):
        command = [sys.executable, "-c", MEASURE, str(tmp_path), str(memory), str(slices)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    peak_and_estimate(700 * MIB, 40)  # converts
    for memory in (420 * MIB, 900 * MIB):
        peak, estimate = peak_and_estimate(memory, 100)
        assert peak <= memory
        assert 0.55 < peak / estimate < 1.15
    short, long = (peak_and_estimate(700 * MIB, slices)[0] for slices in (120, 240))
    grown = 120 * 220 * 200 * (2 + 1 + 9)  # HU, mask, and the image on the working grid
    assert long - short < 1.3 * grown
