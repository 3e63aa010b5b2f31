"""Datasets: every layout on a synthetic tree, what is missing, and fetching from a local Hub."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import restore
from hub_server import Hub, serve
from PIL import Image

from restore_cli.datasets.degraded import MINIATURES
from restore_cli.datasets.fetch import fetch, unpack
from restore_cli.datasets.kohler import read_references
from restore_cli.datasets.registry import DATASETS, find_samples, pair_folder_dataset
from restore_cli.errors import NoInputError, PictureError, UsageError

REDS = [f"{s:03d}/{f:08d}.png" for s in (0, 1) for f in (8, 9, 19, 20)]
TREES = {
    "reds-val300": (
        [f"val/val_blur_bicubic/X4/{name}" for name in REDS]
        + [f"val/val_sharp/{name}" for name in REDS],
        ["000_00000009", "000_00000019", "001_00000009", "001_00000019"],
    ),
    "reds-val": (
        [f"val_blur_bicubic/val/val_blur_bicubic/X4/{name}" for name in REDS]
        + [f"val_sharp/val/val_sharp/{name}" for name in REDS],
        [name.replace("/", "_").removesuffix(".png") for name in REDS],
    ),
    "gopro": (
        [f"GOPRO_Large/test/GOPR{n}/{k}/000001.png" for n in "12" for k in ("blur_gamma", "sharp")],
        ["GOPR1_000001", "GOPR2_000001"],
    ),
    "gopro-linear": (
        [f"test/GOPR1/{k}/000001.png" for k in ("blur", "blur_gamma", "sharp")],
        ["GOPR1_000001"],
    ),
    "gopro-x4": (["Validation_4x/LR_Blur/0001.png", "Validation_4x/HR/0001.png"], ["0001"]),
    "hide-1": (["HIDE_dataset/test/test-long-shot/a.png", "HIDE_dataset/GT/a.png"], ["a"]),
    "hide-2": (["test/test-close-ups/b.png", "GT/b.png"], ["b"]),
    "kohler": (
        ["Blurry1_3.png", *(f"GroundTruth1_3_{n}.png" for n in (1, 2, 30)),
         "Blurry2_1.png", "GroundTruth2_1_1.png"],
        ["1_3", "2_1"],
    ),
    "lai": (
        ["synthetic_dataset/ground_truth/text_01.png",
         "synthetic_dataset/uniform/text_01_kernel_02.png",
         "synthetic_dataset/nonuniform/text_01_gyro_02.png"],
        ["text_01_kernel_02", "text_01_gyro_02"],
    ),
    "videodeblurring": (
        [f"quantitative_datasets/{video}/{kind}/00000.jpg"
         for video in ("IMG_0003", "IMG_0049", "IMG_0001") for kind in ("input", "GT")],
        ["IMG_0049_00000", "IMG_0003_00000"],  # the test videos, in their authors' order
    ),
}  # fmt: skip


def tree(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


@pytest.mark.parametrize("name", sorted(TREES))
def test_layouts(tmp_path, name):
    files, expected = TREES[name]
    samples = find_samples(DATASETS[name], tree(tmp_path, files))
    assert [sample.name for sample in samples] == expected
    assert all(sample.degraded != sample.references[0] for sample in samples)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_realblur_reads_its_list(tmp_path, encoding):
    folder = "RealBlur-J_ECC/scene244_reflect"
    tree(tmp_path, [f"{folder}/blur/blur_1.png", f"{folder}/gt/gt_1.png"])
    line = f"{folder}/gt/gt_1.png {folder}/blur/blur_1.png\n"
    (tmp_path / "RealBlur_J_test_list.txt").write_text(f"{line}\u00e9\n", encoding)
    samples = find_samples(DATASETS["realblur-j"], tmp_path)
    assert [sample.name for sample in samples] == ["scene244_reflect_blur_1"]
    with pytest.raises(NoInputError, match="has no pictures of dataset 'realblur-r'"):
        find_samples(DATASETS["realblur-r"], tmp_path)


def test_the_prepared_val300s(tmp_path):
    cnlrn = tree(
        tmp_path / "a", [f"Val300/{k}/000_00000009.png" for k in ("blur_bicubic_X4", "sharp")]
    )
    shoyan = tree(
        tmp_path / "b", [f"Val300/{k}/{n}.png" for k in ("input", "target") for n in (2, 10)]
    )
    dataset = DATASETS["reds-val300"]
    assert [s.name for s in find_samples(dataset, cnlrn)] == ["000_00000009"]
    assert [s.name for s in find_samples(dataset, shoyan)] == ["2", "10"]


def test_kohler_leaves_the_broken_frame_out(tmp_path):
    names = [*TREES["kohler"][0], "GroundTruth1_3_1 - Copy.png"]
    samples = find_samples(DATASETS["kohler"], tree(tmp_path, names))
    assert [path.name for path in samples[0].references] == [
        "GroundTruth1_3_1.png",
        "GroundTruth1_3_2.png",
    ]


def frames(count, dtype=np.uint8):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (20, 24, 3, count)).astype(dtype)


def test_kohler_reads_mat_files(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    whole = frames(31)
    tree(tmp_path, ["Blurry1_3.png", "BlurryImages/Blurry2_1.png"])
    for name, array in (("1_3", whole), ("2_1", whole[..., :2] / 255.0)):
        savemat(tmp_path / f"GroundTruth{name}.mat", {"GroundTruth": array}, do_compression=True)
    first, second = find_samples(DATASETS["kohler"], tmp_path)
    assert [path.name for path in first.references] == ["GroundTruth1_3.mat"]
    read = read_references(first.references[0])
    assert len(read) == 30  # the broken one is left out
    assert tuple(read[0].shape) == (1, 3, 20, 24)
    for number, frame in enumerate(read):
        expected = whole[..., number + (number > 28)].transpose(2, 0, 1)
        assert np.array_equal((frame[0] * 255).round().numpy(), expected)
    values = (read_references(second.references[0])[1][0] * 255).round().numpy()
    assert np.array_equal(values, whole[..., 1].transpose(2, 0, 1))
    files = tree(tmp_path, ["GroundTruth2_1_1.png"])  # pictures are taken where both are there
    assert find_samples(DATASETS["kohler-x4"], files)[1].references[0].suffix == ".png"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a valid MATLAB file"),
        (
            b"MATLAB 5.0 MAT-file" + bytes(200),
            "cannot read .*(not a valid|has no|Unknown mat)",
        ),
        ({"Other": np.zeros((4, 4, 3, 2))}, "has no 'GroundTruth'"),
        ({"GroundTruth": np.zeros((4, 4))}, "not frames"),
        ({"GroundTruth": np.zeros((4, 4, 3, 0))}, "not frames"),
        ({"GroundTruth": np.full((4, 4, 3, 2), "a", object)}, "not frames"),
        ({"GroundTruth": np.full((4, 4, 3, 2), np.nan)}, "outside 0 to 1"),
        ({"GroundTruth": np.full((4, 4, 3, 2), 300.0)}, "outside 0 to 255"),
        ({"GroundTruth": np.full((4, 4, 3, 2), 700, np.uint16)}, "outside 0 to 255"),
    ],
)
def test_broken_mat_files_are_refused(tmp_path, content, message):
    savemat = pytest.importorskip("scipy.io").savemat
    path = tmp_path / "GroundTruth1_1.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        savemat(path, content)
    with pytest.raises(PictureError, match=message):
        read_references(path)


def test_cut_off_and_changed_mat_files_are_refused_or_read(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    path, bad = tmp_path / "GroundTruth1_1.mat", tmp_path / "bad.mat"
    savemat(path, {"GroundTruth": frames(3)}, do_compression=True)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(whole[: int(generator.integers(1, len(whole)))])
        for place in generator.integers(0, len(broken), 4):
            broken[place] = int(generator.integers(256))
        bad.write_bytes(bytes(broken))
        with contextlib.suppress(PictureError):
            assert all(frame.isfinite().all() for frame in read_references(bad))


def test_what_is_missing_is_named(tmp_path):
    dataset = DATASETS["reds-val300"]
    with pytest.raises(NoInputError, match="is not in") as caught:
        find_samples(dataset, tmp_path / "nowhere")
    assert "--fetch" in caught.value.hint
    assert "val/val_blur_bicubic/X4/000/00000009.png" in caught.value.hint
    files = TREES["reds-val300"][0]
    partial = tree(
        tmp_path / "partial", [f for f in files if not f.endswith("sharp/001/00000019.png")]
    )
    with pytest.raises(NoInputError, match=r"lacks val/val_sharp/001/00000019\.png"):
        find_samples(dataset, partial)
    blurry = tree(tmp_path / "blurry", [name for name in files if "blur" in name])
    with pytest.raises(NoInputError, match="no folder of sharp pictures"):
        find_samples(dataset, blurry)


def test_folders(tmp_path):
    pairs = tree(tmp_path / "mine", ["lr/a.png", "hr/a.png"])
    dataset = pair_folder_dataset(pairs, 1)
    assert [sample.name for sample in find_samples(dataset, pairs)] == ["a"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(NoInputError, match="has no pairs of pictures"):
        find_samples(pair_folder_dataset(empty, 1), empty)


@pytest.mark.slow
def test_blurmini_is_made_from_a_seed(tmp_path):
    dataset = MINIATURES["blurmini"]
    for _ in range(2):  # again: what is there stays
        assert not any(made.error for made in dataset.make(tmp_path / "a"))
    samples = find_samples(dataset, tmp_path / "a")
    assert len(samples) == dataset.count
    with Image.open(samples[0].degraded) as small, Image.open(samples[0].references[0]) as large:
        assert (small.size, large.size) == ((96, 72), (384, 288))
    assert len(list(dataset.make(tmp_path / "b"))) == dataset.count
    for sample in samples:
        other = tmp_path / "b/lr" / sample.degraded.name
        assert other.read_bytes() == sample.degraded.read_bytes()


def archive(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as content:
        for name, data in members.items():
            content.writestr(name, data)
    return stream.getvalue()


def png():
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("outside", ["../../00000009.png", "C:/00000009.png"])
def test_only_wanted_members_are_unpacked_and_none_escapes(outside, tmp_path):
    dataset = DATASETS["reds-val300"]
    path = tmp_path / "a.zip"
    names = ["val/val_sharp/000/00000009.png", "val/val_sharp/000/00000010.png", "notes.txt"]
    path.write_bytes(archive(dict.fromkeys(names, png())))
    members = re.compile(dataset.hub.members)
    assert unpack(path, tmp_path / "out", members) == 1
    assert unpack(path, tmp_path / "out", members) == 0  # whole already
    assert (tmp_path / "out" / names[0]).is_file()
    path.write_bytes(archive({outside: png()}))
    with pytest.raises(NoInputError, match="a path outside the folder"):
        unpack(path, tmp_path / "out", members)
    path.write_bytes(archive({names[0]: png()})[:-30])
    with pytest.raises(NoInputError, match="is broken"):
        unpack(path, tmp_path / "out2", members)


def test_what_is_not_on_the_hub_says_where_it_is(tmp_path):
    with pytest.raises(UsageError, match="cannot be fetched") as caught:
        fetch(DATASETS["hide-1"], tmp_path, lambda message: None)
    assert "github.com/joanshen0508" in caught.value.hint
    with pytest.raises(UsageError, match="cannot be fetched") as caught:
        fetch(pair_folder_dataset(tmp_path, 1), tmp_path, lambda message: None)
    assert caught.value.hint == "leave out --fetch"
    assert "comes with restore" in restore("datasets", "fetch", "blurmini").stderr


@pytest.mark.slow
def test_reds_comes_from_the_hub(tmp_path, tiny_weights):
    """The real client, a server that speaks its HTTP: fetched, unpacked, scored; resumed."""
    dataset = DATASETS["reds-val300"]
    hub = Hub()
    files = {}
    for kind, side in (("val_blur_bicubic/X4", 24), ("val_sharp", 96)):
        stream = io.BytesIO()
        Image.effect_mandelbrot((side, side), (-2, -1.5, 1, 1.5), 50).convert("RGB").save(
            stream, "PNG"
        )
        members = {f"val/{kind}/{name}": stream.getvalue() for name in REDS}
        files[f"{kind.split('/')[0]}.zip"] = archive(members)
    hub.revisions["datasets/snah/REDS"] = {dataset.hub.revision: files}
    server = serve(hub)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "restore_cli", "benchmark", "--dataset", "reds-val300"]
    command += ["--data-root", tmp_path, "--fetch", "-o", tmp_path / "out", "--formats", "json"]
    command += ["--model", f"mprnet-mscam={tiny_weights}", "bicubic"]
    command = list(map(str, command))
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "CC BY 4.0" in done.stderr
        fetched = [line for line in hub.asked if line.startswith("GET") and ".zip" in line]
        assert len(fetched) == 2
        names = {p.name for p in (tmp_path / "REDS").rglob("*.png")}
        assert names == {"00000009.png", "00000019.png"}
    finally:
        server.shutdown()
        server.server_close()
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    again = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    alone = offline | {"HF_HOME": str(tmp_path / "empty")}
    gone = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
    assert gone.returncode == 3
    assert "cannot fetch 'snah/REDS'" in gone.stderr


@pytest.mark.slow
def test_gopro_comes_from_whatever_zips_its_repository_holds(tmp_path):
    hub = Hub()
    kinds = ("blur", "blur_gamma", "sharp")
    names = [f"GOPRO_Large/{s}/GOPR1/{k}/000001.png" for s in ("train", "test") for k in kinds]
    files = {"GOPRO_Large.zip": archive(dict.fromkeys(names, png())), "README.md": b"hello"}
    hub.revisions["datasets/snah/GOPRO_Large"] = {"a" * 40: files}
    server = serve(hub)
    code = (
        "import sys; from pathlib import Path; from restore_cli.datasets.fetch import fetch;"
        "from restore_cli.datasets.registry import DATASETS;"
        "fetch(DATASETS['gopro'], Path(sys.argv[1]), print)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    folder = tmp_path / "GOPRO_Large"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    for name in ("gopro", "gopro-linear", "gopro-x4"):
        assert DATASETS[name].folder(tmp_path) == folder
        assert [sample.name for sample in find_samples(DATASETS[name], folder)] == ["GOPR1_000001"]
    assert not list(folder.rglob("train"))
