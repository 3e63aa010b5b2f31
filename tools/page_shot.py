"""Draw the pictures of the page and of a comparison for the documentation, in a real browser.

python tools/page_shot.py docs

`page-390.jpg` and `page-1280.jpg` are `restore serve` with a picture restored, on a phone in dark
and on a desk in light; `page-choices.jpg` is what it asks for a large photo if x4 is selected;
`compare.jpg` is what `restore image --compare` wrote of another one.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

EXAMPLES = Path(__file__).parent.parent / "examples"
RESTORE = [sys.executable, "-m", "restore_cli"]
PATIENCE = 900_000  # ms


def main() -> None:
    """Serve and compare, and look."""
    target = Path(sys.argv[1])
    with sync_playwright() as tool:
        browser = tool.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        draw_page(browser, target)
        draw_comparison(browser, target)
        browser.close()


def draw_page(browser: Browser, target: Path) -> None:
    """Take the page at two widths, after one picture."""
    server = subprocess.Popen([*RESTORE, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        for width, scheme in ((390, "dark"), (1280, "light")):
            page = browser.new_page(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            page.set_input_files("#picture", EXAMPLES / "motorcycle.png")
            page.wait_for_selector("#result", state="visible")
            shot = target / f"page-{width}.jpg"
            page.screenshot(path=shot, full_page=True, type="jpeg", quality=80)
            page.close()
        draw_choices(browser, address, target)
    finally:
        server.terminate()
        server.communicate()


def draw_choices(browser: Browser, address: str, target: Path) -> None:
    """Take the question for a photo of 11 megapixels at x4, on a phone with a light theme."""
    with Image.open(EXAMPLES / "shaken" / "motorcycle.png") as shaken:
        photo = shaken.convert("RGB").resize((4000, 2699), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    photo.save(content, "JPEG", quality=90)
    page = browser.new_page(viewport={"width": 390, "height": 900}, color_scheme="light")
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.select_option("#model", "maxim-mscam")
    file = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": content.getvalue()}
    page.set_input_files("#picture", file)
    page.wait_for_selector("#choices button")
    shot = target / "page-choices.jpg"
    page.screenshot(path=shot, full_page=True, type="jpeg", quality=80)
    page.close()


def draw_comparison(browser: Browser, target: Path) -> None:
    """Take the page that `--compare` writes."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        files = ["-o", made / "restored.png", "--compare", made / "compare.html"]
        command = [*RESTORE, "image", "casa-mila.png", *files]
        subprocess.run(command, check=True, cwd=EXAMPLES)
        page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme="light")
        page.goto((made / "compare.html").as_uri())
        page.screenshot(path=target / "compare.jpg", full_page=True, type="jpeg", quality=80)


if __name__ == "__main__":
    main()
