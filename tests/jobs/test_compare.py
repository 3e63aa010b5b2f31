"""Before and after: a page that needs nothing else, or one picture."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from conftest import restore
from PIL import Image

from restore_cli.image import read_image
from restore_cli.jobs.compare import STEPS, compare, write_comparison
from restore_cli.jobs.plan import Item
from restore_cli.jobs.run import Outcome
from restore_cli.resample import resize_bicubic


@pytest.fixture
def sources(tmp_path):
    for n, name in enumerate(("a.png", "<b>&.png")):
        values = np.random.default_rng(n).integers(0, 256, (30, 20, 4), np.uint8)
        Image.fromarray(values).save(tmp_path / name)
    return [tmp_path / "a.png", tmp_path / "<b>&.png"]


def test_a_page(tmp_path, sources):
    page = tmp_path / "c/compare.html"
    done = restore("image", *sources, "--model", "bicubic", "--compare", page)
    assert done.exit_code == 0, done.stderr
    text = page.read_text("utf-8")
    assert "&lt;b&gt;&amp;.png" in text
    assert "<b>&.png" not in text
    assert not re.search(r'(src|href)="(?!data:)', text)  # nothing from elsewhere
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(pictures) == 4  # the loupe of small pictures has them already
    with Image.open(io.BytesIO(base64.b64decode(pictures[1]))) as image:
        assert image.size == (80, 120)


def test_a_picture(tmp_path, sources):
    target = tmp_path / "both.png"
    done = restore("image", sources[0], "--model", "bicubic", "-x2", "--compare", target)
    assert done.exit_code == 0, done.stderr
    with Image.open(target) as image:
        assert image.size == (2 * 120 + 8, 30 + 60)
        assert np.array(image)[:30].min() < 128  # labels


def test_what_cannot_be_compared(tmp_path, sources):
    many = restore("image", *sources, "--model", "bicubic", "--compare", tmp_path / "c.png")
    assert many.exit_code == 2
    assert "use an .html file" in many.stderr
    assert not (tmp_path / "a_x4.png").exists()
    kind = restore("image", sources[0], "--model", "bicubic", "--compare", tmp_path / "c.txt")
    assert "neither .png nor .html" in kind.stderr


def made_large(folder, width, height, full_width, full_height, spot):
    """A picture, and its enlargement with a patch of noise at `spot`."""
    rows, columns = np.mgrid[:height, :width]
    small = np.stack([128 + 100 * np.sin(rows / 9), 128 + 100 * np.cos(columns / 7), rows / 4], -1)
    Image.fromarray(small.astype(np.uint8)).save(folder / "small.png")
    enlarged = resize_bicubic(read_image(folder / "small.png").pixels, full_height, full_width)
    values = (enlarged[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255).round().astype(np.uint8)
    top, left = spot
    values[top : top + 60, left : left + 60, 1] ^= 64
    Image.fromarray(values).save(folder / "large.png")
    item = Item(folder / "small.png", folder / "large.png")
    return Outcome(item, "restored", size=(full_height, full_width)), enlarged, values


@pytest.mark.parametrize("full", [(1200, 1000), (750, 625), (751, 867)])
def test_the_loupe_of_a_large_picture_opens_where_it_changed(tmp_path, monkeypatch, full):
    monkeypatch.setattr("restore_cli.jobs.compare._MAX_SIDE", 400)
    monkeypatch.setattr("restore_cli.jobs.compare._PART", (384, 512))
    spot = (full[1] - 250, full[0] - 150)
    outcome, enlarged, values = made_large(tmp_path, 300, 250, *full, spot)
    steps = []
    pair = compare(outcome, lambda: steps.append(1))
    assert len(steps) == STEPS
    assert (max(pair.width, pair.height), pair.size) == (400, f"{full[0]}x{full[1]}")
    loupe = pair.loupe
    assert abs(loupe.x - spot[1] - 30) <= 160
    assert abs(loupe.y - spot[0] - 30) <= 120
    box = np.s_[loupe.top : loupe.top + loupe.height, loupe.left : loupe.left + loupe.width]
    whole = enlarged[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255
    for uri, expected in ((loupe.before, whole[box]), (loupe.after, values[box])):
        with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
            assert image.size == (loupe.width, loupe.height)
            assert np.abs(np.array(image) - expected.astype(float)).mean() < 3


def test_a_picture_of_a_large_one_has_both_whole_and_at_full_size(tmp_path, monkeypatch):
    monkeypatch.setattr("restore_cli.jobs.compare._MAX_SIDE", 400)
    outcome, _, values = made_large(tmp_path, 300, 200, 1200, 800, (600, 1000))
    write_comparison(tmp_path / "both.png", [outcome], "")
    with Image.open(tmp_path / "both.png") as image:
        assert image.size == (2 * 400 + 8, 30 + 267 + 30 + 266)
        after = np.array(image)[-266:, 408:]
    tops, lefts = range(0, 800 - 265, 4), range(0, 801, 4)
    begin = [(y, x) for y in tops for x in lefts if (values[y, x] == after[0, 0]).all()]
    (place,) = [(y, x) for y, x in begin if (values[y : y + 266, x : x + 400] == after).all()]
    assert 600 - 266 < place[0] <= 600
    assert 1000 - 400 < place[1] <= 1000


def test_pictures_that_are_alike_are_looked_at_in_the_middle(tmp_path):
    outcome, _, _ = made_large(tmp_path, 300, 200, 1200, 800, (600, 1000))
    same = Outcome(Item(outcome.item.target, outcome.item.target), "restored", size=(800, 1200))
    loupe = compare(same).loupe
    assert abs(loupe.x - 600) <= 1
    assert abs(loupe.y - 400) <= 1
    assert loupe.before == loupe.after == ""
