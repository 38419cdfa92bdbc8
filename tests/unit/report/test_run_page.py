"""The report of a run: curves and the attention strip."""

from __future__ import annotations

import re
import struct
from io import BytesIO
from math import nan

import numpy as np
import pytest
from matplotlib.image import imread

from ct_attn.metrics import SurfaceConvention
from ct_attn.report.definitions import s2s_by
from ct_attn.report.page import CasePicture
from ct_attn.report.plots import curve_plot
from ct_attn.report.run_page import WorstCase, write_run_report
from ct_attn.report.strip import attention_strip

LOG = [
    {"epoch": 0, "learning_rate": 0.01, "loss": 0.9},
    {"epoch": 1, "learning_rate": 0.005, "loss": 0.5, "dsc": 0.4, "dsc_pancreas": 0.2, "dsc_spleen": 0.6,
     "validation_loss": 0.75, "training_dsc_spleen": 0.111},
    {"epoch": 2, "learning_rate": 0.0, "loss": 0.3},
    {"epoch": 3, "learning_rate": 0.0, "loss": 0.2, "dsc": 0.7, "dsc_pancreas": 0.5, "dsc_spleen": 0.9,
     "validation_loss": 0.4567, "training_iou_spleen": 0.222, "precision_spleen": 0.333,
     "recall_spleen": nan, "s2s_mm_spleen": 2.345, "n_missed_spleen": 2.0, "n_spurious_spleen": 0.0},
]  # fmt: skip


def strip(epochs=(3, 6), gates=("level1", "level2_gate1"), size=(40, 30)):
    rng = np.random.default_rng(0)
    labels = np.zeros(size, dtype=np.uint8)
    labels[10:20, 5:15] = 2
    maps = {epoch: {gate: rng.random(size, dtype=np.float32) for gate in gates} for epoch in epochs}
    return attention_strip(rng.random(size, dtype=np.float32), labels, maps)


def written(tmp_path, picture=None):
    path = tmp_path / "report.html"
    write_run_report(
        path,
        title="a <run>",
        facts={"network": "unet"},
        log=LOG,
        targets=["pancreas", "spleen"],
        strip=picture,
    )
    return path.read_text(encoding="utf-8")


def points(svg):
    return [
        [tuple(map(float, pair.split(","))) for pair in line.split()]
        for line in re.findall(r'<polyline points="([^"]*)"', svg)
    ]


def test_a_curve_goes_through_its_points_from_left_to_right_and_up_with_its_value():
    (line,) = points(curve_plot({"loss": [(1, 0.9), (2, 0.5), (4, 0.2)]}, title="loss", highest=1.0))
    across, down = zip(*line, strict=True)
    assert list(across) == sorted(across)
    assert list(down) == sorted(down)  # a falling value goes down the page
    assert across[2] - across[1] == pytest.approx(2 * (across[1] - across[0]), abs=0.2)
    assert down[1] - down[0] == pytest.approx(4 / 3 * (down[2] - down[1]), abs=0.2)


def test_several_curves_are_named_and_coloured_apart():
    svg = curve_plot({"left_kidney": [(1, 0.2)], "spleen": [(1, 0.4)]}, title="t", highest=1.0)
    assert "left kidney, last 0.200" in svg
    assert len(set(re.findall(r'<polyline[^>]*stroke="([^"]*)"', svg))) == 2


def test_curves_without_points_are_empty_not_broken():
    assert points(curve_plot({"loss": []}, title="t", highest=1.0)) == [[]]


def test_the_page_has_all_curves_and_what_it_was_given(tmp_path):
    html = written(tmp_path)
    assert "a &lt;run&gt;" in html
    lines = points(html)
    assert [len(line) for line in lines] == [4, 2, 0, 1, 2, 2, 0, 1, 4]
    assert "Attention over the training" not in html


def test_the_last_validated_epoch_stands_in_a_table_training_beside_validation(tmp_path):
    table = written(tmp_path).split('<section aria-labelledby="latest">')[1].split("</section>")[0]
    assert "Training and validation after epoch 4" in table
    assert "Loss 0.2000 on the training patches, 0.4567 on the validation cases" in table
    spleen = re.findall(r"<td>(.*?)</td>", table.split("</tr>")[3])
    assert spleen[:8] == ["—", "0.222", "—", "—", "0.900", "—", "0.333", "—"]
    assert spleen[8] == "2.35 <small>without 2 missed, 0 spurious</small>"
    pancreas = re.findall(r"<td>(.*?)</td>", table.split("</tr>")[2])
    assert pancreas[8] == "—"
    write_run_report(tmp_path / "r", title="t", facts={}, log=LOG[:1], targets=["pancreas"], strip=None)
    assert "latest" not in (tmp_path / "r").read_text(encoding="utf-8")


def test_the_worst_cases_are_listed_with_dsc_and_s2s_and_shown(tmp_path):
    worst = [
        WorstCase(
            case_id=f"case_{number}",
            state=("scored", "spurious" if number else "not labelled"),
            dsc=(0.1234, 0.0 if number else nan),
            s2s_mm=(12.5, nan),
        )
        for number in range(12)
    ]
    picture = CasePicture(case_id="case_0", png=strip(), alt="slices of case_0")
    path = tmp_path / "report.html"
    write_run_report(
        path, title="t", facts={}, log=LOG, targets=["pancreas", "spleen"],
        worst=worst, pictures=[picture], strip=None,
    )  # fmt: skip
    html = path.read_text(encoding="utf-8")
    assert ">0.123 <small>12.50</small></td>" in html
    assert '<td data-value=""><small>not labelled</small></td>' in html
    assert ">0.000 <small>spurious</small></td>" in html
    assert "10 of 12 cases" in html
    assert 'scope="row">case_9<' in html
    assert 'scope="row">case_10<' not in html
    assert 'alt="slices of case_0"' in html


def test_the_numbers_of_a_training_are_defined_and_how_both_empty_counts(tmp_path):
    html = written(tmp_path)
    for words in (
        s2s_by(SurfaceConvention.AREA),
        "also called IoU",
        "in the working grid&#39;s spacing",
        "both empty too",
    ):
        assert words in html
    assert "<dt>HD95</dt>" not in html  # none is shown


def test_the_page_fetches_nothing_and_shows_the_strip(tmp_path):
    picture = CasePicture(case_id="case_7", png=strip(), alt="after epochs 3, 6")
    html = written(tmp_path, picture)
    assert "Attention over the training" in html
    assert "case_7" in html
    assert 'alt="after epochs 3, 6"' in html
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert written(tmp_path, picture) == html


@pytest.mark.parametrize(
    ("epochs", "gates"), [((3,), ("level1",)), ((3, 6, 10), ("level1", "level2", "level3"))]
)
def test_the_strip_has_a_column_per_epoch_and_a_row_per_gate(epochs, gates):
    png = strip(epochs, gates)
    wide, high = struct.unpack(">2I", png[16:24])
    assert wide == pytest.approx(110 * (1.5 * (len(epochs) + 1) + 0.9), abs=2)
    assert high == pytest.approx(110 * (1.5 * 30 / 40 * len(gates) + 0.35), abs=2)
    assert strip(epochs, gates) == png


def test_the_strip_is_seen_from_the_feet_anterior_up():
    """A grey corner at the patient's right front lies in the upper left of the slice."""
    image = np.zeros((40, 40), dtype=np.float32)
    image[30:, 30:] = 0.5  # the last voxels are rightmost and most anterior
    png = attention_strip(image, np.zeros((40, 40), np.uint8), {1: {"level1": image}})
    picture = imread(BytesIO(png))[..., :3]
    panel = picture[30:, : int(0.4 * picture.shape[1])].mean(-1)
    grey, black = (np.argwhere(np.abs(panel - level) < 0.02).mean(axis=0) for level in (0.5, 0.0))
    assert (grey < black).all()
