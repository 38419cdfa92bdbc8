from __future__ import annotations

from dataclasses import replace

from ct_attn.metrics.scores import CaseScore, State, SurfaceConvention
from ct_attn.published import published_figures
from ct_attn.report.definitions import s2s_by
from ct_attn.report.reproduction_table import HEADINGS, make_lines, markdown, write_page
from ct_attn.reproduction.experiments import EXPERIMENTS, choose, trainings_for
from ct_attn.reproduction.table import Result, make_rows

SCR = next(one for one in EXPERIMENTS if one.name == "ct82_scr_unet")


def case(number, dsc, s2s_mm):
    return CaseScore(
        case_id=str(number), organ="pancreas", state=State.SCORED,
        dsc=dsc, precision=0.5, recall=0.6, s2s_mm=s2s_mm,
    )  # fmt: skip


def result():
    return Result(
        experiment=SCR,
        data="drawings",
        scores={
            SurfaceConvention.AREA: [case(1, 0.7, 2.0), case(2, 0.9, 4.0)],
            SurfaceConvention.CONTOUR: [case(1, 0.7, 1.0), case(2, 0.9, 2.0)],
        },
        parameters=5_887_466,
        seconds=1.5,
    )


def test_ours_stand_beside_the_published_by_both_conventions():
    rows = {
        (row.experiment, row.organ, row.metric): row for row in make_rows(published_figures(), [result()])
    }
    s2s = rows["ct82_scr_unet", "pancreas", "s2s_mm"]
    assert (s2s.published_mean, s2s.published_std) == (2.576, 1.180)
    assert (s2s.mean, s2s.contour_mean, s2s.n, s2s.data) == (3.0, 1.5, 2, "drawings")
    assert s2s.contour_n == 2
    assert rows["ct82_scr_unet", "pancreas", "dsc"].contour_n is None
    assert rows["ct82_scr_unet", "", "parameters_million"].mean == 5.887466


def test_cases_without_a_slice_in_common_are_said_beside_the_distance_by_contours(tmp_path):
    scores = {
        SurfaceConvention.AREA: [case(1, 0.7, 2.0), case(2, 0.9, 4.0), case(3, 0.1, 60.0)],
        SurfaceConvention.CONTOUR: [case(1, 0.7, 1.0), case(2, 0.9, 2.0), case(3, 0.1, None)],
    }
    rows = make_rows(published_figures(), [replace(result(), scores=scores)])
    [s2s] = [row for row in rows if row.experiment and (row.organ, row.metric) == ("pancreas", "s2s_mm")]
    assert (s2s.n, s2s.contour_n, s2s.n_missed) == (3, 2, 0)
    lines = make_lines(rows)
    [line] = [line for line in lines if line.about[1:3] == ("U-Net", "SCR")]
    assert line.note == "n = 3; S2S 3, by contours 2"
    write_page(tmp_path / "page.html", title="T", facts={}, notes=[], lines=lines)
    assert all(line.note in text for text in (markdown(lines, []), (tmp_path / "page.html").read_text()))


def test_a_line_holds_everything_of_a_network_and_an_organ():
    lines = make_lines(make_rows(published_figures(), [result()]))
    (line,) = [line for line in lines if line.about[1:3] == ("U-Net", "SCR")]
    assert line.published == (
        "0.815 ± 0.068", "0.815 ± 0.105", "0.826 ± 0.062", "2.576 ± 1.180", "", "–", "–",
    )  # fmt: skip
    assert line.ours[0] == "0.800 ± 0.141"
    assert line.ours[3:] == ("3.000 ± 1.414", "1.500 ± 0.707", "5.89", "1.500")
    assert len(line.about) + 1 + len(line.ours) == len(HEADINGS)


def test_a_line_repeats_the_networks_figures_with_each_organ():
    lines = [
        line for line in make_lines(make_rows(published_figures(), [])) if line.about[0] == "multi-class"
    ]
    assert len(lines) == 4 * 3
    assert {line.published[-2] for line in lines} == {"5.88", "6.40"}
    assert {line.note for line in lines} == {"not asked for"}


def test_missed_organs_are_said_beside_a_distance(tmp_path):
    missed = CaseScore(case_id="3", organ="pancreas", state=State.MISSED, dsc=0.0, recall=0.0)
    with_missed = Result(
        experiment=SCR, data="d", scores={SurfaceConvention.AREA: [case(1, 0.7, 2.0), missed]}
    )
    lines = make_lines(make_rows(published_figures(), [with_missed]))
    (line,) = [line for line in lines if line.about[1:3] == ("U-Net", "SCR")]
    assert line.note == "n = 2; S2S 1; 1 missed, 0 spurious (DSC 0; not in the distances)"
    assert line.note in markdown(lines, ["a note"])
    write_page(tmp_path / "page.html", title="T", facts={"a": "b"}, notes=["a note"], lines=lines)
    page = (tmp_path / "page.html").read_text()
    assert "1 missed, 0 spurious" in page
    assert "0.815 ± 0.068" in page
    assert s2s_by(SurfaceConvention.AREA) in page
    assert (
        f"<dt>S2S, by contours</dt><dd>The convention of the authors&#39; released code. "
        f"{s2s_by(SurfaceConvention.CONTOUR)}" in page
    )


def test_what_another_experiment_needs_is_trained_first():
    names = [one.name for one in trainings_for(choose(["ct82_aft_unet", "ct82_bft_attention_unet"]))]
    assert names == ["ct150_120_30_unet", "ct150_120_30_attention_unet", "ct82_aft_unet"]
    assert len(trainings_for(choose([]))) == 10
