"""The report of an evaluation in a real browser: what a reader sees, clicks and types.

Twenty tiny phantoms, whose predictions are their truth shifted and eaten into; nothing is trained.
"""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ct_attn.datasets.phantom import PhantomConfig
from ct_attn.datasets.phantom.cohort import CohortConfig, make_cohort
from ct_attn.labels import DISK_SCHEME, PAPER_SCHEME, recode
from ct_attn.manifest import read_manifest
from ct_attn.scan_io import nifti
from ct_attn.volume import Mask
from tests.browser import Page, find_chromium, open_browser, pixels
from tests.command import ct_attn

N_CASES = 20
TINY = PhantomConfig(in_plane_spacing_mm=(8.0, 8.0), slice_spacing_mm=(10.0, 10.0))
DESKTOP, PHONE = (1280, 800), (390, 760)

# Draws anew and reads what is drawn in the same breath, as a WebGL picture is gone after it was shown.
READ_CANVAS = """(() => {
  document.getElementById("viewer-axial").dispatchEvent(new Event("input", { bubbles: true }));
  const gl = document.getElementById("viewer-canvas").getContext("webgl2");
  const [width, height] = [gl.drawingBufferWidth, gl.drawingBufferHeight];
  const bytes = new Uint8Array(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
  let text = "";
  for (let at = 0; at < bytes.length; at += 9999) {
    text += String.fromCharCode(...bytes.subarray(at, at + 9999));
  }
  return btoa(text);
})()"""


def perturbed(labels: np.ndarray, case: int) -> np.ndarray:
    """``labels`` one voxel off along some axis, without the pancreas in one case."""
    moved = np.roll(labels, 1 if case % 3 else 0, axis=case % 3)
    moved[(labels > 0) & (np.arange(labels.shape[0])[:, None, None] % (4 + case % 5) == 0)] = 0
    if case == 4:
        moved[moved == PAPER_SCHEME.codes["pancreas"]] = 0
    return moved


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    config = CohortConfig(n_training=2, n_test=N_CASES, n_folds=2, seed=5, phantom=TINY)
    manifest_path = make_cohort(config, folder / "cohort", jobs=2)
    for number, case in enumerate(read_manifest(manifest_path).test):
        truth, _ = nifti.read_mask(manifest_path.parent / case.label)
        labels = perturbed(recode(truth.labels, DISK_SCHEME, PAPER_SCHEME), number)
        path = folder / "masks" / f"{case.case_id}.nii.gz"
        nifti.write_mask(Mask(labels=labels, grid=truth.grid), path, scheme=PAPER_SCHEME)
    done = ct_attn(
        "evaluate", "--truth", manifest_path, "--predicted", folder / "masks", "-o", folder / "out",
        "--pictures", 3, "--viewer", 2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "out" / "report.html"


@dataclass(frozen=True)
class Opened:
    page: Page
    report: Path


@pytest.fixture(scope="module")
def opened(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """One browser for all tests; each loads the report anew."""
    if find_chromium() is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs the system's chromium; .ci/run installs it")
        pytest.skip("no chromium on this machine; a package of the system brings it")
    with open_browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield Opened(page=page, report=report)


@pytest.fixture
def page(opened: Opened) -> Page:
    opened.page.requests.clear()
    opened.page.complaints.clear()
    opened.page.show_as(*DESKTOP)
    opened.page.open(opened.report)
    return opened.page


def rows_shown(page: Page) -> list[list[str]]:
    return page.run(
        "[...document.querySelectorAll('#cases-table tbody tr')].filter((row) => !row.hidden)"
        ".map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
    )


def column(page: Page, place: int) -> list[float]:
    return [float(row[place]) for row in rows_shown(page) if row[place] not in ("", "—")]


def assert_not_blank(png: bytes, *, dark: bool = False) -> None:
    picture = pixels(png)
    assert (picture.mean() < 110) if dark else (picture.mean() > 140)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 60
    for part in np.array_split(picture, 4):
        assert part.std() > 2  # something in every quarter


def test_nothing_is_asked_of_the_network_and_nothing_complains(page, opened):
    assert [url for url in page.requests if not url.startswith("data:")] == [opened.report.as_uri()]
    assert page.complaints == []
    assert opened.report.stat().st_size < 20e6
    wide = page.run("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0


def test_the_table_sorts_by_click_and_by_key(page):
    dsc = column(page, 3)
    assert dsc == sorted(dsc)
    assert len(dsc) == 3 * N_CASES
    heading = "document.querySelectorAll('#cases-table thead button')[3]"
    page.run(f"{heading}.click()")
    assert column(page, 3) == sorted(dsc, reverse=True)
    page.run(f"{heading}.focus()")
    page.press("Enter", 13)
    assert column(page, 3) == sorted(dsc)
    assert page.run(f"{heading}.closest('th').getAttribute('aria-sort')") == "ascending"
    page.run("document.querySelectorAll('#cases-table thead button')[6].click()")
    distances = [row[6] for row in rows_shown(page)]
    assert distances[-1].startswith("—")  # the missed pancreas stays last


def test_the_table_filters_by_name_organ_and_state(page):
    page.run("document.querySelector('[name=organ]').focus()")
    page.run(
        "(e => { e.value = 'pancreas'; e.dispatchEvent(new Event('input', {bubbles: true})) })"
        "(document.querySelector('[name=organ]'))"
    )
    assert {row[1] for row in rows_shown(page)} == {"pancreas"}
    assert page.run("document.querySelector('.controls output').innerText") == f"{N_CASES} of {3 * N_CASES}"
    page.run("document.querySelector('[name=words]').focus()")
    for key in "t00":
        page.press(key, ord(key.upper()))
    assert len(rows_shown(page)) == 10
    page.run(
        "(e => { e.value = 'missed'; e.dispatchEvent(new Event('input', {bubbles: true})) })"
        "(document.querySelector('[name=state]'))"
    )
    assert [row[0][-4:] for row in rows_shown(page)] == ["t004"]


def test_more_measures_and_larger_pictures_come_on_demand(page):
    heads = "[...document.querySelectorAll('#cases-table thead th')]"
    shown = f"{heads}.filter((heading) => heading.offsetWidth).length"
    assert page.run(shown) == 9
    page.run("document.querySelector('[name=all]').click()")
    assert page.run(shown) == 20
    picture = "document.querySelector('.zoom img').getBoundingClientRect().width"
    small = page.run(picture)
    page.run("document.querySelector('.zoom').click()")
    assert page.run(picture) > 1.5 * small


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_page_is_not_blank(page, size, dark):
    page.show_as(*size, dark=dark)
    for place in ("summary", "cases", "pictures"):
        page.run(f"document.getElementById('{place}').scrollIntoView()")
        assert_not_blank(page.screenshot(), dark=dark)
    assert page.run("document.documentElement.scrollWidth - innerWidth") <= 0


def test_what_is_printed_has_everything_but_the_controls(page):
    page.show_as(794, 1123, media="print")
    for hidden in (".controls", ".viewer", "nav"):
        assert page.run(f"document.querySelector('{hidden}').offsetHeight") == 0
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("document.querySelector('.measures').offsetHeight") > 100
    assert (
        page.run(
            "document.querySelector('.wide').scrollHeight - document.querySelector('.wide').clientHeight"
        )
        <= 1
    )
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("document.querySelectorAll('details[open]').length") == 0
    assert_not_blank(page.screenshot())


def test_the_viewer_shows_scan_and_masks(page):
    page.show_as(640, 480)
    page.run("document.getElementById('viewer-open').click()")
    page.wait_for("document.getElementById('viewer-place').innerText.includes('HU')")
    assert page.run("document.getElementById('viewer-message').innerText") == ""
    with_masks = canvas(page)
    coloured = saturation(with_masks) > 60
    assert 0.005 < coloured.mean() < 0.5
    for name in ("truth", "predicted"):
        page.run(f"document.getElementById('viewer-{name}').click()")
    scan = canvas(page)
    assert (saturation(scan) > 60).mean() < 0.001
    assert len(np.unique(scan[..., 0])) > 40  # the greys of a scan
    page.run(
        "(e => { e.value = 'bone'; e.dispatchEvent(new Event('input', {bubbles: true})) })"
        "(document.getElementById('viewer-window'))"
    )
    assert canvas(page).mean() < scan.mean()
    page.run("document.getElementById('viewer-truth').click()")
    page.run("document.querySelector('[name=view][value=render]').click()")
    assert (saturation(canvas(page)) > 60).mean() > 0.005
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith(("data:", "file:"))] == []


def canvas(page: Page) -> np.ndarray:
    """What the viewer has drawn, [pixels, 1, 3]."""
    return (
        np.frombuffer(b64decode(page.run(READ_CANVAS)), dtype=np.uint8).reshape(-1, 1, 4)[..., :3].astype(int)
    )


def saturation(picture: np.ndarray) -> np.ndarray:
    return picture.max(axis=-1) - picture.min(axis=-1)


def test_without_webgl_there_is_a_message_and_all_else_works(report, tmp_path):
    if find_chromium() is None:
        pytest.skip("no chromium on this machine; a package of the system brings it")
    with open_browser(tmp_path / "profile", "--disable-3d-apis") as page:
        page.open(report)
        assert "needs WebGL 2" in page.run("document.getElementById('viewer-message').innerText")
        assert page.run("document.getElementById('viewer-open').offsetHeight") == 0
        assert len(rows_shown(page)) == 3 * N_CASES
        assert page.complaints == []
