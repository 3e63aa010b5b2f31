"""What bundled checkpoints make of a picture stays the same, whatever is changed around them."""

from __future__ import annotations

import sys

import pytest
from conftest import ROOT
from safetensors.torch import load_file

from restore_cli.weights.manifest import load_manifest

sys.path.insert(0, str(ROOT / "tests/golden"))
from outputs import FILE, output

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", sorted(load_manifest().checkpoints))
def test_pixels_stay_the_same(name):
    """Rounding differs between processors by 1 of 255 at most."""
    difference = output(name).int() - load_file(FILE)[name].int()
    assert difference.abs().max() <= 1
    assert difference.abs().float().mean() < 0.02
