"""Which pictures: folders, trees, globs, lists; each once, never around a loop of links."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest
from asking import planned
from PIL import Image

from restore_cli.errors import NoInputError, UsageError
from restore_cli.jobs.inputs import find, read_list
from restore_cli.jobs.request import Selection


@pytest.fixture
def tree(tmp_path):
    for name in ("a.png", "b.JPG", "sub/a.png", "sub/deep/c.tiff", "notes.txt", ".hidden.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "in"


def found_in(*inputs, **options):
    return find(Selection(inputs, **options))


def test_folders_nested_too_deep_are_an_error(tmp_path):
    tmp_path.joinpath(*["d"] * 100).mkdir(parents=True)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 90)
    try:
        with pytest.raises(UsageError, match="nested too deep"):
            found_in(tmp_path, recursive=True)
    finally:
        sys.setrecursionlimit(before)


def names(sources, tree):
    return [str(source.path.relative_to(tree)) for source in sources]


def test_folders_and_trees(tree):
    assert names(found_in(tree), tree) == ["a.png", "b.JPG"]
    found = found_in(tree, recursive=True)
    assert names(found, tree) == ["a.png", "b.JPG", "sub/a.png", "sub/deep/c.tiff"]
    assert found[-1].relative == Path("sub/deep")


def test_loops_of_links_end(tree):
    for name in ("x", "y"):
        (tree / "sub" / name).symlink_to(tree / "sub")
    assert names(found_in(tree / "**/*.png"), tree) == ["a.png", "sub/a.png"]
    assert names(found_in(tree / "sub/**"), tree) == ["sub/a.png", "sub/deep/c.tiff"]
    (tree / "sub/loop").symlink_to(tree)
    (tree / "self.png").symlink_to(tree / "self.png")
    # The link to itself is reported when it is read.
    assert len(found_in(tree, recursive=True)) == 5


def test_include_and_exclude(tree):
    assert names(found_in(tree, recursive=True, include=["*.png"]), tree) == ["a.png", "sub/a.png"]
    found = found_in(tree, recursive=True, exclude=["sub/*", "*.JPG"])
    assert names(found, tree) == ["a.png"]
    for folder in ("CLIP.MP4", "b.mp4"):  # cameras write suffixes in capitals
        (tree / folder).touch()
    assert names(found_in(tree, include=["*.mp4"]), tree) == ["b.mp4", "CLIP.MP4"]
    # What was named itself is wanted, whatever it is called.
    assert len(found_in(tree / "notes.txt", include=["*.png"])) == 1


def test_quoted_globs(tree):
    assert names(found_in(tree / "*.png"), tree) == ["a.png"]
    assert names(found_in(tree / "**/*.png"), tree) == ["a.png", "sub/a.png"]
    with pytest.raises(NoInputError, match="no pictures match"):
        found_in(tree / "*.webp")
    (tree / "s.png").touch()  # which matches as well
    (tree / ".s").mkdir()
    (tree / ".s/hidden.png").touch()
    assert names(found_in(tree / "s*"), tree) == ["s.png", "sub/a.png"]
    assert ".s/hidden.png" not in names(found_in(tree / "*"), tree)
    (tree / "s.png").unlink()
    assert names(found_in(tree / "s*"), tree) == ["sub/a.png"]  # the pictures in such folders
    assert [str(one.relative) for one in found_in(tree / "s*", recursive=True)] == [
        "sub",
        "sub/deep",
    ]
    (tree / "[x].png").touch()  # a name with magic characters is a name first
    assert names(found_in(tree / "[x].png"), tree) == ["[x].png"]


def test_each_picture_once(tree):
    (tree / "link.png").symlink_to(tree / "a.png")  # a picture of its own, as in films
    (tree.parent / "same").symlink_to(tree)
    given = (tree / "a.png", tree, tree / "sub" / ".." / "a.png", tree.parent / "same")
    assert names(found_in(*given), tree) == ["a.png", "b.JPG", "link.png"]


def test_lists():
    assert read_list("a b.png\r\nü.png\n\n".encode(), separator=b"\n") == [
        Path("a b.png"),
        Path("ü.png"),
    ]
    assert read_list(b"a\nb.png\0c.png\0", separator=b"\0") == [Path("a\nb.png"), Path("c.png")]
    with pytest.raises(UsageError, match="NUL"):
        read_list(b"a.png\0b.png\0", separator=b"\n")


def targets(*inputs, output, **options):
    return [str(item.target) for item in planned(*inputs, output=output, **options)]


def test_the_tree_is_mirrored(tree, tmp_path):
    out = tmp_path / "out"
    assert targets(tree, output=out, recursive=True) == [
        str(out / name) for name in ("a_x4.png", "b_x4.JPG", "sub/a_x4.png", "sub/deep/c_x4.tiff")
    ]


def test_templates(tree):
    assert targets(tree / "b.JPG", output=Path("{dir}/{name}-{model}@{scale}.{ext}")) == [
        str(tree / "b-gfn@4.JPG")
    ]
    assert targets(tree / "b.JPG", output=Path("{dir}/x/{name}.{ext}"), format="webp") == [
        str(tree / "x/b.webp")
    ]
    assert targets(tree / "**/*.png", output=tree / "out") == [
        str(tree / "out" / name) for name in ("a_x4.png", "sub/a_x4.png")
    ]
    for broken in (
        "{name",
        "{name.upper}.png",
        "{name[0]}.png",
        "a{.png",
        "{name}}.png",
        "{}",
        "{name:d}",
        "{name!x}",
        "{scale:{x}}",
        "{size}",
    ):
        with pytest.raises(UsageError, match="is not a valid template"):
            targets(tree / "a.png", output=Path(broken))
    with pytest.raises(UsageError, match="would both be written to"):
        targets(tree, output=tree / "{scale}.png")


def test_rename_finds_free_names(tree):
    for name in ("a_x4.png", "a_x4-1.png"):
        (tree / name).touch()
    assert targets(tree / "a.png", output=None, on_exists="rename") == [str(tree / "a_x4-2.png")]


def test_shards_are_all_and_disjoint(tree, tmp_path):
    parts = [
        targets(tree, output=tmp_path / "out", recursive=True, shard=(part, 3))
        for part in (1, 2, 3)
    ]
    assert sorted(name for part in parts for name in part) == sorted(
        targets(tree, output=tmp_path / "out", recursive=True)
    )


def test_a_full_disk_is_found_before_the_model_loads(tree, tmp_path, monkeypatch):
    Image.new("RGB", (1000, 1000)).save(tree / "a.png")
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UsageError, match=r"but only 1\.0 MB are free"):
        targets(tree / "a.png", output=tmp_path / "out")
    assert targets(tree / "a.png", output=tmp_path / "o.avif")  # 1 MB is enough for that


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": "keep"}, "alpha choice"),
        ({"icc": "no"}, "icc choice"),
        ({"metadata": "some"}, "metadata choice"),
        ({"resume": True, "metadata": "none"}, "--resume recognises"),
        ({"resume": True, "on_exists": "rename"}, "rename gives new names"),
        ({"depth": 16, "format": "jpeg"}, "jpeg has at most 8 bits"),
    ],
)
def test_choices_that_cannot_be(tree, options, message):
    with pytest.raises(UsageError, match=message):
        targets(tree / "a.png", output=None, **options)


def test_folders_of_systems_are_not_entered(tree):
    for name in (".Trash-1000/files/a.png", "@eaDir/a.png/t.png", "__MACOSX/._a.png", "._a.png"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    everything = ["a.png", "b.JPG", "sub/a.png", "sub/deep/c.tiff"]
    assert names(found_in(tree, recursive=True), tree) == everything
    assert names(found_in(tree / "**/*.png"), tree) == ["a.png", "sub/a.png"]
    assert names(found_in(tree / ".Trash-1000/*/*.png"), tree) == [".Trash-1000/files/a.png"]


def test_numbers_in_names_are_numbers(tmp_path):
    for n in (1, 2, 10):
        (tmp_path / f"{n}.png").touch()
    wanted = ["1.png", "2.png", "10.png"]
    assert names(found_in(tmp_path), tmp_path) == wanted
    assert names(found_in(tmp_path / "*.png"), tmp_path) == wanted


def test_brackets_of_folders_that_exist_are_literal(tmp_path):
    folder = tmp_path / "shots [2024]"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        (folder / name).touch()
    assert names(found_in(folder / "*.png"), folder) == ["a.png"]
    found = found_in(folder / "**/*.png")
    assert [source.relative for source in found] == [Path(), Path("sub")]
    with pytest.raises(NoInputError, match=r"no such file or folder: .*missing"):
        found_in(folder / "missing.png")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("separator", [b"\n", b"\0"])
def test_lists_of_windows(encoding, separator):
    if encoding == "utf-8-sig" and separator == b"\0":
        text = "a.png\0日本.png\0"
    else:
        text = "a.png\r\n日本.png\r\n"
    assert read_list(text.encode(encoding), separator=separator) == [
        Path("a.png"),
        Path("日本.png"),
    ]


def test_half_a_character_is_said():
    with pytest.raises(UsageError, match="not valid UTF-16"):
        read_list("a.png\n".encode("utf-16") + b"\0", separator=b"\n")


def test_names_that_become_too_long_are_refused_before_the_work(tmp_path):
    source = tmp_path / f"{'n' * 249}.png"
    source.touch()
    with pytest.raises(UsageError, match="longer than the 255 bytes"):
        planned(source, output=tmp_path / "out")
    assert planned(source, output=tmp_path / "{name:.9}.{ext}")
