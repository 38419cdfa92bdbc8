from __future__ import annotations

import pytest
import typer

from ct_attn.terminal import progress_bar, report_failures, stderr, stdout


def test_results_go_to_one_stream_and_all_else_to_the_other(capsys):
    stdout.print("a result")
    stderr.print("a note")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("a result\n", "a note\n")


def test_progress_does_not_mix_with_results():
    with progress_bar() as progress:
        assert progress.console.stderr


def test_failures_are_named_counted_and_end_with_code_1(capsys):
    with pytest.raises(typer.Exit) as left:
        report_failures(["a.nii.gz: [torn]", "b.nii.gz: empty"], 5)
    assert left.value.exit_code == 1
    assert capsys.readouterr().err.splitlines() == [
        "failed: a.nii.gz: [torn]",
        "failed: b.nii.gz: empty",
        "2 of 5 cases failed",
    ]


def test_where_nothing_failed_nothing_is_said(capsys):
    report_failures([], 5)
    assert capsys.readouterr() == ("", "")


def test_a_long_line_stays_one_line(capsys):
    stdout.print("word " * 100)
    assert capsys.readouterr().out.count("\n") == 1
