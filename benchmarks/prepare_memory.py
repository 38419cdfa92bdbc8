"""Peak memory and time of preparing one case as large as Pancreas-CT's largest.

    python benchmarks/prepare_memory.py

draws a phantom, stretches it to 512 x 512 x 466, writes it as the DICOM series and labels of
a download into a temporary folder, and runs ``ct-attn prepare pancreas-ct`` on it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.ndimage import zoom

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ct_attn.datasets.phantom import draw_case
from ct_attn.volume import Grid, Mask, Volume
from tests.downloads import COARSE, recoded, write_dicom, write_label

SHAPE = (512, 512, 466)


def write_download(root: Path) -> None:
    """One case in ``root``: images, labels and multi-organ labels."""
    case = draw_case(1, COARSE)
    factors = [wanted / size for wanted, size in zip(SHAPE, case.volume.hu.shape, strict=True)]
    grid = Grid(shape=SHAPE, affine=np.diag([-0.8, -0.8, 0.6, 1.0]))
    hu = zoom(case.volume.hu.astype(np.float32), factors, order=1).astype(np.int16)
    mask = Mask(labels=zoom(case.mask.labels, factors, order=0), grid=grid)
    write_dicom(root / "images" / "PANCREAS_0001" / "study" / "series", Volume(hu=hu, grid=grid))
    write_label(root / "labels" / "label0001.nii.gz", recoded(mask, {1: 1}), grid.affine)
    write_label(root / "more" / "label0001.nii.gz", recoded(mask, {1: 11, 2: 1, 3: 3}), grid.affine)


def main() -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        # In a process of its own: what this one used before would count as its children's.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(write_download, root).result()
        command = [
            Path(sys.executable).with_name("ct-attn"),
            "prepare",
            "pancreas-ct",
            "--images",
            root / "images",
        ]
        command += ["--labels", root / "labels", "--multi-organ", root / "more", "-o", root / "out"]
        began = time.monotonic()
        _, status, used = os.wait4(subprocess.Popen(command).pid, 0)
        seconds = time.monotonic() - began
    if status:
        sys.exit("prepare failed")
    peak_gb = used.ru_maxrss * 1024 / 1e9  # Linux counts in KiB
    print(f"{'x'.join(map(str, SHAPE))}: peak {peak_gb:.2f} GB, {seconds:.0f} s")


if __name__ == "__main__":
    main()
