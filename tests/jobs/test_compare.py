"""Before and after: a page that needs nothing else, or one picture."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from restore_cli.cli.app import app


def restore(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


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
    assert len(pictures) == 4
    with Image.open(io.BytesIO(base64.b64decode(pictures[1]))) as image:
        assert image.size == (80, 120)


def test_a_picture(tmp_path, sources):
    target = tmp_path / "both.png"
    done = restore("image", sources[0], "--model", "bicubic", "-x2", "--compare", target)
    assert done.exit_code == 0, done.stderr
    with Image.open(target) as image:
        assert image.size == (2 * 40 + 8, 60)


def test_what_cannot_be_compared(tmp_path, sources):
    many = restore("image", *sources, "--model", "bicubic", "--compare", tmp_path / "c.png")
    assert many.exit_code == 2
    assert "use .html" in many.stderr
    assert not (tmp_path / "a_x4.png").exists()
    kind = restore("image", sources[0], "--model", "bicubic", "--compare", tmp_path / "c.txt")
    assert "neither .png nor .html" in kind.stderr
