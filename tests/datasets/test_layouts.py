"""Pairs as datasets lay them out, and what is said of trees that are not whole."""

from __future__ import annotations

import pytest
from PIL import Image

from restore_cli.datasets.layouts import find_all_folders, find_pairs
from restore_cli.errors import NoInputError


def tree(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return folder


def names(found):
    return [pair.name for pair in found.pairs]


@pytest.mark.parametrize(
    "sides",
    [("lr", "hr"), ("input", "target"), ("blur", "sharp"), ("blur_bicubic_X4", "sharp")],
)
def test_plain(tmp_path, sides):
    degraded, reference = sides
    for root in (tmp_path / "a", tmp_path / "b/train"):
        tree(root, f"{degraded}/x/1.png", f"{degraded}/0.jpg")
        tree(root, f"{reference}/x/1.webp", f"{reference}/0.png", f"{reference}/notes.ppm")
    for folder in ("a", "b"):
        found = find_pairs(tmp_path / folder)
        assert found.layout == "plain"
        assert names(found) == ["0", "x/1"]
        assert found.pairs[1].degraded.name == "1.png"
        assert found.pairs[1].reference.name == "1.webp"


def test_reds_as_it_unpacks_and_as_it_is_written(tmp_path):
    frame = "{}/00000009.png"
    unpacked = tree(
        tmp_path / "zips",
        *(
            f"train_blur_bicubic/train/train_blur_bicubic/X4/{frame.format(s)}"
            for s in ("000", "001")
        ),
        *(f"train_sharp/train/train_sharp/{frame.format(s)}" for s in ("000", "001")),
    )
    one = tree(
        tmp_path / "one",
        *(f"train/train_blur_bicubic/X4/{frame.format(s)}" for s in ("000", "001")),
        *(f"train/train_sharp/{frame.format(s)}" for s in ("000", "001")),
    )
    for folder in (unpacked, one, one / "train"):
        found = find_pairs(folder)
        assert found.layout == "reds"
        assert names(found) == ["000/00000009", "001/00000009"]
    assert find_pairs(one, "val") is None


def test_gopro(tmp_path):
    parts = [f"train/GOPR{n}/{kind}/000001.png" for n in (1, 2) for kind in ("blur", "blur_gamma")]
    tree(tmp_path, *parts, "train/GOPR1/sharp/000001.png", "train/GOPR2/sharp/000001.png")
    found = find_pairs(tmp_path)
    assert found.layout == "gopro"
    assert names(found) == ["GOPR1/000001", "GOPR2/000001"]
    assert {pair.degraded.parent.name for pair in found.pairs} == {"blur_gamma"}
    linear = find_pairs(tmp_path / "train", gopro_blur="blur")
    assert {pair.degraded.parent.name for pair in linear.pairs} == {"blur"}


def test_photos_are_no_pairs(tmp_path):
    photos = tree(tmp_path / "photos/x", "a.png", "lr/b.png", "more/sharp/c.jpg")
    assert find_pairs(photos.parent) is None
    assert find_pairs(tree(tmp_path / "hr_only", "hr/b.png")) is None


def test_what_is_missing_is_named(tmp_path):
    tree(tmp_path / "a", "lr/0.png", "lr/1.png", "hr/0.png")
    with pytest.raises(NoInputError, match=r"lr' has pictures that .*hr' lacks: 1"):
        find_pairs(tmp_path / "a")
    tree(tmp_path / "b", "lr/0.png", *(f"hr/{n}.png" for n in range(9)))
    with pytest.raises(NoInputError, match=r"lacks: 1, 2, 3 and 5 more"):
        find_pairs(tmp_path / "b")
    tree(tmp_path / "c", "train/train_blur_bicubic/X4/000/00000000.png")
    with pytest.raises(NoInputError, match="no folder of sharp pictures"):
        find_pairs(tmp_path / "c")
    tree(tmp_path / "d", "train/GOPR1/blur/1.png", "train/GOPR1/sharp/1.png")
    with pytest.raises(NoInputError, match="no folder of blur_gamma pictures"):
        find_pairs(tmp_path / "d")
    (tmp_path / "e/lr").mkdir(parents=True)
    (tmp_path / "e/hr").mkdir()
    with pytest.raises(NoInputError, match="no pictures in"):
        find_pairs(tmp_path / "e")


def test_files_of_systems_are_no_pictures(tmp_path):
    tree(tmp_path / "a", "lr/0.png", "hr/0.png", "lr/.thumbnails/1.png", "GOPR1/x/1.png")
    (tmp_path / "a/hr/._0.png").write_bytes(b"AppleDouble")
    (tmp_path / "a/hr/.0.png").write_bytes(b"")
    assert names(find_pairs(tmp_path / "a")) == ["0"]
    tree(tmp_path / "g/train", "S/sharp/1.png", "S/blur_gamma/1.png", "@eaDir/sharp/1.png")
    assert names(find_pairs(tmp_path / "g")) == ["S/1"]


def test_two_pictures_of_one_name_are_not_guessed_about(tmp_path):
    tree(tmp_path, "lr/0.png", "lr/0.jpg", "hr/0.png")
    with pytest.raises(NoInputError, match="have the same name"):
        find_pairs(tmp_path)


def test_links_to_folders_that_contain_them_are_not_followed(tmp_path):
    """They double the paths at every level: the search would not end."""
    tree(tmp_path / "set", "lr/a.png", "hr/a.png")
    for name, target in (("self", "."), ("again", "."), ("up", "..")):
        (tmp_path / "set" / name).symlink_to(target)
    whole, halves = find_all_folders(tmp_path)
    assert [one.degraded for one in whole] == [tmp_path / "set/lr"]
    assert halves == []
