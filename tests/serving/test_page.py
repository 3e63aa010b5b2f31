"""The page in a real browser: on a phone and on a desk, by keyboard alone, in dark and in light."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

pytest.importorskip("uvicorn")
pytest.importorskip("multipart")
playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
WIDTHS = (390, 1280)
PATIENCE = 90_000  # ms


def picture(width, height, kind="PNG"):
    rows, columns = np.mgrid[:height, :width]
    values = np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def address():
    """`restore serve` with a limit that photos of a phone exceed, as a process."""
    command = [sys.executable, "-m", "restore_cli", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--max-pixels", "1000000"], stdout=subprocess.PIPE, text=True
    )
    timer = threading.Timer(540, process.kill)
    timer.start()
    try:
        yield process.stdout.readline().strip()
    finally:
        timer.cancel()
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tool:
        opened = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, address):
    """A page at a width; at the end, nothing went to other hosts and no script failed."""
    pages, asked, wrong = [], [], []

    def visit(width=1280, **options):
        page = browser.new_page(viewport={"width": width, "height": 844}, **options)
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        page.select_option("#model", "gfn")
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.close()
    assert wrong == []
    assert all(url.startswith((address, "data:", "blob:", "about:")) for url in asked), asked


def choose(page, content, name="photo.png"):
    page.set_input_files("#picture", {"name": name, "mimeType": "", "buffer": content})


def restored(page):
    page.wait_for_selector("#result", state="visible")
    return page.inner_text("#caption")


def overflow(page):
    """Pixels by which the page is wider than its window, and what sticks out of it."""
    return page.evaluate(
        "[document.documentElement.scrollWidth - window.innerWidth,"
        " [...document.querySelectorAll('main *')].filter((one) => !one.closest('.pair, .loupe')"
        " && one.getBoundingClientRect().right > window.innerWidth + 1).map((one) => one.tagName)]"
    )


def contrasts(page):
    """The least ratio of luminance (WCAG 2.2) of the texts that are on the page's own ground."""
    ground = Image.open(io.BytesIO(page.screenshot())).convert("RGB").getpixel((2, 2))
    texts = page.evaluate(
        "[...document.querySelectorAll('h1, p, label, strong, #caption, #notes li, .zooms span')]"
        ".filter((one) => one.offsetParent).map((one) => getComputedStyle(one).color)"
    )

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722))) + 0.05

    back = luminance([value / 255 for value in ground])
    ratios = []
    for text in texts:
        front = luminance([int(value) / 255 for value in re.findall(r"\d+", text)[:3]])
        ratios.append(max(front, back) / min(front, back))
    return min(ratios), back


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_is_legible(visit, width, scheme):
    page = visit(width, color_scheme=scheme)
    assert overflow(page) == [0, []]
    choose(page, b"no picture", "a" * 90 + ".png")
    page.wait_for_selector("#error", state="visible")
    assert overflow(page) == [0, []]
    ratio, ground = contrasts(page)
    assert ratio >= 4.5
    assert (ground > 0.5) == (scheme == "light")
    choose(page, picture(48, 40))
    assert "192x160" in restored(page)
    assert overflow(page) == [0, []]
    assert contrasts(page)[0] >= 4.5


def chooser_by_key(page):
    """Open the file chooser by the space bar, which Chromium ignores at times under load."""
    for seconds in (6, 6, 6, 20):
        page.bring_to_front()
        page.focus("#picture")
        with contextlib.suppress(playwright.TimeoutError):
            with page.expect_file_chooser(timeout=1000 * seconds) as chooser:
                page.keyboard.press("Space")
            return chooser.value
    raise AssertionError("the key opens no file chooser")


def test_keyboard_alone(visit):
    page = visit()
    chooser = chooser_by_key(page)
    chooser.set_files({"name": "photo.png", "mimeType": "", "buffer": picture(120, 100)})
    restored(page)
    page.keyboard.press("Tab")  # from the result to the slider
    at = "getComputedStyle(document.querySelector('.line')).left"
    before = page.evaluate(at)
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(at) != before
    page.keyboard.press("Tab")  # to the loupe
    shown = "[...document.querySelectorAll('.loupe img')].map((one) => one.style.transform)"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    left, right = page.evaluate(shown)
    assert left == right
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # 400 %
    pressed = page.inner_text(".zooms [aria-pressed=true]")
    assert pressed == "400 %"
    assert page.evaluate("document.querySelector('.loupe img').style.width") == f"{480 * 4}px"
    assert page.evaluate(shown)[0] != left
    page.keyboard.press("Tab")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "photo_x4.png"
    with Image.open(download.value.path()) as made:
        assert made.size == (480, 400)


def test_a_file_that_is_too_large_is_not_sent(visit, tmp_path):
    with (tmp_path / "photo.png").open("wb") as file:
        file.truncate(50_000_001)
    page, sent = visit(), []
    page.on("request", lambda request: sent.append(request.method))
    page.set_input_files("#picture", tmp_path / "photo.png")
    page.wait_for_selector("#error", state="visible")
    assert page.inner_text("#error") == "photo.png is larger than 50 MB."
    assert "POST" not in sent


def test_the_loupe_follows_the_mouse_and_is_dragged(visit):
    page = visit(1280)
    choose(page, picture(200, 160))
    restored(page)
    spot = "document.querySelector('.spot').getBoundingClientRect()"
    box = page.locator(".pair").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    corner = page.evaluate(f"[{spot}.left, {spot}.top]")
    assert corner == pytest.approx([box["x"], box["y"]], abs=1)
    page.locator(".loupe").scroll_into_view_if_needed()
    loupe = page.locator(".loupe").bounding_box()
    page.mouse.move(loupe["x"] + 200, loupe["y"] + 150)
    page.mouse.down()
    page.mouse.move(loupe["x"] + 100, loupe["y"] + 100, steps=4)
    page.mouse.up()
    box = page.locator(".pair").bounding_box()
    left, top = page.evaluate(f"[{spot}.left, {spot}.top]")
    assert left > box["x"] + 10
    assert top > box["y"] + 10


@pytest.mark.parametrize("width", WIDTHS)
def test_a_photo_that_is_too_large_can_be_shrunk_by_a_button(visit, width):
    page = visit(width)
    choose(page, picture(640, 480, "JPEG"), "photo.jpg")
    page.wait_for_selector("#choices button")
    assert "2560x1920" in page.inner_text("#error")
    assert "--" not in page.inner_text("main")
    labels = page.locator("#choices button").all_inner_texts()
    assert sorted(label.split()[0] for label in labels) == ["Deblur", "Keep", "Shrink"]
    assert overflow(page) == [0, []]
    page.click("#choices button:has-text('Shrink')")
    caption = restored(page)
    side, other = (int(text) for text in re.search(r"(\d+)x(\d+)", caption).groups())
    assert 900_000 < side * other <= 1_000_000
    assert "it was shrunk to" in page.inner_text("#notes")
    assert page.inner_text("#download") == "Download photo_x4.jpg"


def test_a_large_photo_without_detail_keeps_its_size(visit):
    """Blurred over 50 pixels in every direction, as the server finds when it tries the x1 model."""
    noise = np.random.default_rng(0).integers(0, 256, (750, 1000, 3), np.uint8)
    photo = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(16))
    buffer = io.BytesIO()
    ImageOps.autocontrast(photo).save(buffer, "JPEG", quality=95)
    page = visit(390)
    choose(page, buffer.getvalue(), "photo.jpg")  # with gfn selected, which nobody tries x1 for
    page.wait_for_selector("#choices button")
    labels = page.locator("#choices button").all_inner_texts()
    assert [label.split()[0] for label in labels] == ["Deblur", "Shrink", "Keep"]
    assert all(": about " in label for label in labels)
    assert overflow(page) == [0, []]
    page.select_option("#model", "")
    choose(page, buffer.getvalue(), "photo.jpg")
    assert "1000x750" in restored(page)
    assert "in every direction" in page.inner_text("#notes")
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "photo_deblurred.jpg"


def test_the_server_chooses_model_and_size(visit):
    page = visit(390)
    page.select_option("#model", label="chosen for the picture")
    choose(page, picture(64, 48))
    assert "256x192" in restored(page)
    assert "maxim-mscam: 64x48" in page.inner_text("#notes")
    assert overflow(page) == [0, []]


def test_a_picture_that_keeps_its_size_is_called_deblurred(visit):
    page = visit()
    page.select_option("#model", "attentive-deblur")
    choose(page, picture(64, 48))
    assert "64x48" in restored(page)
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "photo_deblurred.png"


def test_pasting(visit):
    page = visit()
    page.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
        }""",
        list(picture(40, 32)),
    )
    assert "160x128" in restored(page)


def dropped(page, *names):
    """Drop files of those names on the page, or, without names, something that is no file."""
    page.evaluate(
        """([bytes, names]) => {
            const data = new DataTransfer();
            for (const name of names) data.items.add(new File([new Uint8Array(bytes)], name));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
        }""",
        [list(picture(40, 32)), names],
    )


def test_what_was_not_taken_is_said(visit):
    page = visit()
    dropped(page)
    assert "That is not a file" in page.inner_text("#error")
    dropped(page, "a.png", "b.png")
    assert page.inner_text("#error") == "One picture at a time: only a.png was taken."
    assert "160x128" in restored(page)
    page.select_option("#model", "maxim")
    choose(page, picture(400, 300))
    page.wait_for_selector("#status:has-text('Restoring')")
    for kind in ("pagehide", "pageshow"):  # the browser goes back to a page that it has kept
        page.evaluate(
            f"window.dispatchEvent(new PageTransitionEvent('{kind}', {{ persisted: true }}))"
        )
    assert "since the page was left" in page.inner_text("#error")
    assert not page.is_visible("#work")
    choose(page, picture(400, 300))
    page.wait_for_selector("#status:has-text('Restoring')")
    page.select_option("#model", "gfn")
    dropped(page, "c.png")
    assert page.inner_text("#error") == "photo.png was cancelled."
    assert "160x128" in restored(page)


@pytest.mark.parametrize("way", ["button", "leaving"])
def test_cancelling_stops_the_work_and_the_queue_moves_on(visit, address, way):
    first, second = visit(), visit()
    first.select_option("#model", "maxim")  # which takes seconds on any processor
    with first.expect_response(lambda response: response.request.method == "POST") as sent:
        choose(first, picture(480, 400))
    key = sent.value.json()["key"]
    first.wait_for_selector("#status:has-text('Restoring')")
    choose(second, picture(32, 32))
    second.wait_for_selector("#status:has-text('one picture comes first')")
    if way == "button":
        first.focus("#cancel")
        first.keyboard.press("Enter")
        assert first.inner_text("#error") == "photo.png: cancelled."
        assert not first.is_visible("#work")
    else:
        first.goto("about:blank")
    assert "128x128" in restored(second)
    for _ in range(200):
        state = second.request.get(f"{address}jobs/{key}").json()
        if state["state"] != "running":
            break
        time.sleep(0.1)
    assert (state["state"], state["error"]) == ("failed", "cancelled")
