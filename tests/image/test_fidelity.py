"""The page of what is kept is of this version, and nothing on it is lost without a word."""

from __future__ import annotations

import importlib.util

import pytest
from conftest import ROOT

FILE = ROOT / "tools" / "fidelity.py"
spec = importlib.util.spec_from_file_location("fidelity", FILE)
fidelity = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fidelity)


@pytest.mark.parametrize("name", fidelity.CARRIERS)
@pytest.mark.parametrize("key", fidelity.FORMATS)
def test_nothing_is_lost_without_a_word(name, key):
    kind, make = fidelity.CARRIERS[name]
    assert fidelity.fate(make(), kind, key) in ("kept", "converted", "announced", "refused")


def test_the_page_is_of_this_version():
    assert fidelity.PAGE.read_text("utf-8") == fidelity.page()
