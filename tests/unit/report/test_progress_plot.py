"""The curves of a training as one picture."""

from __future__ import annotations

from io import BytesIO

from matplotlib.image import imread

from ct_attn.report.progress_plot import progress_picture
from tests.unit.report.test_run_page import LOG

TARGETS = ["pancreas", "spleen"]


def test_the_picture_follows_from_the_rows_alone():
    first = progress_picture(LOG, TARGETS, title="a run")
    assert progress_picture(LOG, TARGETS, title="a run") == first
    assert progress_picture(LOG[:2], TARGETS, title="a run") != first
    assert imread(BytesIO(first)).shape[:2] == (600, 1000)


def test_a_run_that_was_never_validated_has_its_loss():
    assert progress_picture(LOG[:1], TARGETS, title="a run") != progress_picture([], TARGETS, title="a run")
