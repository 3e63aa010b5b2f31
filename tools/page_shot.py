"""Draw docs/page.png: the page of `restore serve` with a picture restored, in a real browser.

python tools/page_shot.py examples/motorcycle.png docs/page.png
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    """Serve, drop the picture, wait, look."""
    picture, target = (Path(text) for text in sys.argv[1:])
    server = subprocess.Popen(
        [sys.executable, "-m", "restore_cli", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        with sync_playwright() as tool:
            browser = tool.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1000, "height": 1060})
            page.goto(address)
            page.set_input_files("#picture", picture)
            page.wait_for_selector("#result", state="visible", timeout=120_000)
            page.screenshot(path=target, full_page=True)
            browser.close()
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
