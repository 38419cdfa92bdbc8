"""Draws the pictures of the documents.

python docs/make_pictures.py demo demo/            from a finished demo
python docs/make_pictures.py report report.html    from any report of an evaluation, with Chromium
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image

from ct_attn.report.figures import case_picture
from ct_attn.scan_io import nifti

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tests' browser

from tests.browser import Page, open_browser

PICTURES = Path(__file__).parent / "pictures"
#: Of the demo's test cases.
CASES = ("phantom_1_t003", "phantom_1_t005")


def draw_demo(demo: Path) -> None:
    """What `predict` draws of a test case, and two test cases beside their truth."""
    manifest, model = demo / "cohort" / "manifest.json", demo / "run" / "model"
    scan = demo / "cohort" / "imagesTs" / f"{CASES[0]}.nii.gz"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mask = folder / "mask.nii.gz"
        ct_attn("predict", "-m", model, "-i", scan, "-o", mask, "--features")
        predicted, scheme = nifti.read_mask(mask)
        # what --preview begins with; the planes through each organ follow there
        keep(case_picture(nifti.read_volume(scan), predicted, scheme=scheme), "preview")
        keep((folder / "mask_features.png").read_bytes(), "attention", share=0.6)
        scores = ("--predicted", demo / "masks", "-o", folder / "scores", "--pictures", "0", "--viewer", "0")
        ct_attn("evaluate", "--truth", manifest, *scores, "--side-by-side")
        pictures = [
            Image.open(folder / "scores" / "pictures" / f"{case}.png").convert("RGB") for case in CASES
        ]
        both = Image.new("RGB", (pictures[0].width, sum(picture.height for picture in pictures)))
        for place, picture in enumerate(pictures):
            both.paste(picture, (0, sum(above.height for above in pictures[:place])))
        drawn = BytesIO()
        both.save(drawn, "PNG")
        keep(drawn.getvalue(), "demo_cases", share=0.7)


def ct_attn(*words: str | Path) -> None:
    subprocess.run([Path(sys.executable).with_name("ct-attn"), *words], check=True)


def photograph(report: Path) -> None:
    """The head of the report, its viewer, and how it looks on a phone in the dark."""
    with tempfile.TemporaryDirectory() as folder, open_browser(Path(folder) / "profile") as page:
        page.show_as(1180, 1060)
        page.open(report)
        keep(page.screenshot(), "report_summary")
        page.show_as(1180, 640)
        open_viewer(page)
        keep(page.screenshot(), "report_viewer")
        page.show_as(390, 800, dark=True)
        page.open(report)
        keep(page.screenshot(), "report_phone")


def open_viewer(page: Page) -> None:
    page.run("document.getElementById('viewer-open').click()")
    page.wait_for("document.getElementById('viewer-place').innerText.includes('HU')")
    page.run("document.getElementById('viewer').scrollIntoView()")
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def keep(png: bytes, name: str, *, share: float = 1) -> None:
    """``share`` of the sides; pages as they are, in 256 colours, which is a third of the size."""
    image = Image.open(BytesIO(png)).convert("RGB")
    image = image.resize((round(share * image.width), round(share * image.height)))
    if share == 1:
        image = image.quantize(256, dither=Image.Dither.NONE)
    image.save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    what, source = sys.argv[1], Path(sys.argv[2])
    if what == "report":
        photograph(source)
    else:
        draw_demo(source)
