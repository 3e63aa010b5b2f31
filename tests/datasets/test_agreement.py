"""What a layout writes is read by train and benchmark, and found right by the checker."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from restore_cli.datasets.layouts import LAYOUTS, find_pairs
from restore_cli.datasets.lint import check_pairs
from restore_cli.datasets.registry import find_samples, pair_folder_dataset
from restore_cli.errors import NoInputError

SIDE = 48
SHARP = Image.radial_gradient("L").resize((SIDE, SIDE)).convert("RGB")
NAMES = st.text("ab0_- .é", min_size=1, max_size=6).map(lambda text: f"x{text}x")
pairs = st.sets(st.tuples(NAMES, st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=3)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
@settings(deadline=None, max_examples=6, database=None)
@given(
    wanted=pairs,
    split=st.sampled_from(["train", "val", "test"]),
    scale=st.sampled_from([1, 2, 4]),
    blur=st.sampled_from(["blur", "blur_gamma"]),
    suffix=st.sampled_from([".png", ".bmp", ".WEBP"]),
)
def test_writer_reader_and_checker_agree(layout, wanted, split, scale, blur, suffix):
    with tempfile.TemporaryDirectory() as name:
        folder, written = Path(name), {}
        for stem, sequence, frame in sorted(wanted):
            degraded, reference = layout.paths(
                name=stem, split=split, scale=scale, blur=blur, sequence=sequence, frame=frame
            )
            written[folder / f"{degraded}.png"] = folder / f"{reference}{suffix}"
        small = SHARP.resize((SIDE // scale, SIDE // scale), Image.Resampling.BOX)
        for degraded, reference in written.items():
            save(degraded, small)
            save(reference, SHARP)
        found = find_pairs(folder, split, blur)
        assert found.layout == layout.name
        assert {pair.degraded: pair.reference for pair in found.pairs} == written
        assert len({pair.name for pair in found.pairs}) == len(written)
        assert [finding.text for finding in check_pairs(folder)] == []
        if blur == "blur_gamma":
            own = pair_folder_dataset(folder, scale)
            assert {one.degraded for one in find_samples(own, folder)} == set(written)
        min(written.values()).unlink()  # without one partner, all three see it
        with pytest.raises(NoInputError):
            find_pairs(folder, split, blur)
        assert [finding.kind for finding in check_pairs(folder)] == ["missing"]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_every_alternative_that_is_read_is_checked(tmp_path, layout):
    fields = {"split": "val", "scale": 4, "blur": "blur_gamma", "sequence": "S"}
    for number, sides in enumerate(layout.folders):
        for place, root in enumerate(layout.roots):
            folder = tmp_path / f"{number}{place}"
            for side, image in zip(sides, (SHARP.resize((12, 12)), SHARP), strict=True):
                archive = side.partition("/")[0]
                path = f"{root}/{side}".replace("{archive}", archive).format(**fields)
                save(folder / path.lstrip("/") / "0/1.png", image)
            found = find_pairs(folder, "val")
            assert (found.layout, len(found.pairs)) == (layout.name, 1)
            assert not list(check_pairs(folder))
            found.pairs[0].degraded.unlink()
            (finding,) = check_pairs(folder)
            assert finding.text == "has no degraded partner"


def test_folders_without_pictures_are_not_without_problems(tmp_path):
    for name in ("lr", "hr"):
        (tmp_path / name).mkdir()
    with pytest.raises(NoInputError):
        list(check_pairs(tmp_path))
