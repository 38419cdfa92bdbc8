"""The report of an evaluation in a real browser: what a reader sees, clicks and types.

Twenty tiny phantoms, whose predictions are their truth shifted and eaten into; nothing is trained.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ct_attn.datasets.phantom import PhantomConfig
from ct_attn.datasets.phantom.cohort import CohortConfig, make_cohort
from ct_attn.labels import DISK_SCHEME, PAPER_SCHEME, recode
from ct_attn.manifest import read_manifest
from ct_attn.scan_io import nifti
from ct_attn.volume import Mask
from tests.browser import DESKTOP, PHONE, Page, assert_not_blank, open_browser, require_chromium
from tests.command import ct_attn

N_CASES = 20
TINY = PhantomConfig(in_plane_spacing_mm=(8.0, 8.0), slice_spacing_mm=(10.0, 10.0))

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
    require_chromium()
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
    page.run("document.querySelector('.zoom').focus()")
    page.press("Enter", 13)
    assert page.run(picture) == small


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
    assert page.pdf().startswith(b"%PDF-")


def test_the_viewer_shows_scan_and_masks(page):
    open_viewer(page)
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


def open_viewer(page: Page) -> None:
    page.show_as(640, 480)
    page.run("document.getElementById('viewer-open').click()")
    page.wait_for("document.getElementById('viewer-place').innerText.includes('HU')")


def value(page: Page, name: str) -> int:
    return int(page.run(f"document.getElementById('viewer-{name}').value"))


def test_the_viewer_is_used_by_keys_and_by_the_wheel(page):
    open_viewer(page)
    slices = canvas(page)
    before = value(page, "axial")
    page.run("document.getElementById('viewer-axial').focus()")
    for _ in range(3):
        page.press("ArrowRight", 39)
    assert value(page, "axial") == before + 3
    assert (canvas(page) != slices).mean() > 0.01
    page.run("document.querySelector('[name=view]').focus()")
    page.press("ArrowRight", 39)  # from the planes to the axial one
    assert page.run("document.querySelector('[name=view]:checked').value") == "axial"
    page.run("document.getElementById('viewer-canvas').scrollIntoView({ block: 'center' })")
    x, y, wide, high = page.run(
        "(r => [r.x, r.y, r.width, r.height])"
        "(document.getElementById('viewer-canvas').getBoundingClientRect())"
    )
    page.turn_wheel(x + wide / 2, y + high / 2, 100)
    page.wait_for(f"document.getElementById('viewer-axial').value != {before + 3}")
    page.run("document.querySelector('[name=view][value=render]').click()")
    solid = canvas(page)
    turn, tilt = value(page, "turn"), value(page, "tilt")
    for name in ("turn", "tilt"):
        page.run(f"document.getElementById('viewer-{name}').focus()")
        for _ in range(20):
            page.press("ArrowRight", 39)
    assert (value(page, "turn"), value(page, "tilt")) == (turn + 20, tilt + 20)
    assert (saturation(np.abs(canvas(page) - solid)) > 20).mean() > 0.01
    assert page.run("document.getElementById('viewer-axial').offsetHeight") == 0  # nothing to slice in 3D
    assert page.complaints == []


def test_the_patients_front_is_left_in_the_viewers_sagittal_plane_as_in_the_pictures(page):
    open_viewer(page)
    shown = json.loads(page.run("document.getElementById('viewer-data').textContent"))[0]
    image = nib.as_closest_canonical(
        nib.Nifti1Image.from_bytes(gzip.decompress(b64decode(shown["truth"])))
    )  # towards right, front, head
    organs = np.asarray(image.dataobj) > 0
    depth = np.arange(organs.shape[1]) - (organs.shape[1] - 1) / 2
    moments = (organs.sum(axis=2) * depth).sum(axis=1)
    place = int(np.abs(moments).argmax())  # the slice whose organs lie furthest to one side
    page.run("document.querySelector('[name=view][value=sagittal]').click()")
    page.run("document.getElementById('viewer-predicted').click()")
    page.run(
        f"(e => {{ e.value = {place}; e.dispatchEvent(new Event('input', {{ bubbles: true }})) }})"
        "(document.getElementById('viewer-sagittal'))"
    )
    picture = canvas(page)
    wide = page.run("document.getElementById('viewer-canvas').getContext('webgl2').drawingBufferWidth")
    columns = np.argwhere(saturation(picture).reshape(-1, wide) > 60)[:, 1]
    assert len(columns) > 20
    assert np.sign(wide / 2 - columns.mean()) == np.sign(moments[place])


def canvas(page: Page) -> np.ndarray:
    """What the viewer has drawn, [pixels, 1, 3]."""
    return (
        np.frombuffer(b64decode(page.run(READ_CANVAS)), dtype=np.uint8).reshape(-1, 1, 4)[..., :3].astype(int)
    )


def saturation(picture: np.ndarray) -> np.ndarray:
    return picture.max(axis=-1) - picture.min(axis=-1)


def test_without_webgl_there_is_a_message_and_all_else_works(report, tmp_path):
    require_chromium()
    with open_browser(tmp_path / "profile", "--disable-3d-apis") as page:
        page.open(report)
        assert "needs WebGL 2" in page.run("document.getElementById('viewer-message').innerText")
        assert page.run("document.getElementById('viewer-open').offsetHeight") == 0
        assert len(rows_shown(page)) == 3 * N_CASES
        assert page.complaints == []
