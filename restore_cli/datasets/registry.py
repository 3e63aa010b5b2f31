"""Published datasets by name: their files, number of pictures, and usual protocol.

A finder accepts every layout in which its dataset is distributed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from restore_cli.datasets.kohler import frames_of
from restore_cli.datasets.layouts import KNOWN, NAMED, Folders, Pair, find_folders, find_pairs
from restore_cli.datasets.synthesize import DegradeOutcome
from restore_cli.errors import NoInputError
from restore_cli.files import absolute
from restore_cli.formatting import format_list
from restore_cli.image import read_size
from restore_cli.image.folders import is_hidden, list_pictures, natural_key
from restore_cli.jobs.inputs import read_list


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Zip files of a dataset repository on the Hub, pinned to a commit."""

    repository: str  # `owner/name`
    revision: str  # commit, or branch if no commit is known
    archives: tuple[str, ...]  # zip files to fetch; empty for all
    members: str  # regular expression of the files to unpack
    licence: str  # licence of the pictures, and whom to credit


USER_DATA = "your own"  # the home of folders of pairs, and of what is made from the user's photos


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset with its task and protocol."""

    name: str  # name on the command line, and of its folder in the data root
    description: str  # one line
    scale: int  # 4 or 1
    protocol: str  # name of the usual protocol
    count: int | None  # number of samples of the whole set; None if it is not fixed
    find: Callable[[Path], Iterator[Pair]]  # function from a folder to its samples, in order
    layout: str  # description of its folder, for errors and help
    home: str  # web page of the dataset
    hub: HubFiles | None = None  # where it is fetched from; None if it must be fetched by hand
    # factor by which degraded pictures are shrunk (bicubic, 8 bits) before restoring
    shrink: int = 1
    crop_multiple: int = 1  # sides of the reference are cropped to multiples of this
    shared: str = ""  # folder in the data root that several datasets share, or ""
    # function that makes it in a folder, and returns the outcome of every picture; None if it is
    # found or fetched
    make: Callable[[Path], Iterable[DegradeOutcome]] | None = None

    def folder(self, root: Path) -> Path:
        """Return its folder in the data root: that of its own name, else the shared one."""
        own = root / self.name
        return root / self.shared if self.shared and not own.is_dir() else own


def find_samples(dataset: Dataset, folder: Path) -> list[Pair]:
    """Return all samples in a folder, which may be fewer than `Dataset.count`.

    Raises `NoInputError` if a folder, or a file of a pair, is missing.
    """
    if not folder.is_dir():
        raise NoInputError(
            f"dataset '{dataset.name}' is not in '{folder}'",
            hint=f"expected {dataset.layout}; see {dataset.home}"
            + (", or add --fetch" if dataset.hub else ""),
        )
    samples = list(dataset.find(folder))
    if not samples:
        what = (
            "pairs of pictures"
            if dataset.home == USER_DATA
            else f"pictures of dataset '{dataset.name}'"
        )
        raise NoInputError(f"'{folder}' has no {what}", hint=f"expected {dataset.layout}")
    missing = [path for s in samples for path in (s.degraded, *s.references) if not path.is_file()]
    if missing:
        names = [str(path.relative_to(folder)) for path in missing]
        raise NoInputError(
            f"dataset '{dataset.name}' in '{folder}' lacks {format_list(names, NAMED)}",
            hint=f"expected {dataset.layout}",
        )
    return samples


def _val300(folder: Path) -> Iterator[Pair]:
    """Find the folders that CNLRN or Shoyan prepare, else select from all frames."""
    prepared = folder / "Val300"
    if (prepared / "blur_bicubic_X4").is_dir():  # CNLRN's
        yield from Folders(prepared / "blur_bicubic_X4", prepared / "sharp").pairs()
    elif (prepared / "input").is_dir():  # Shoyan's: 0.png to 299.png
        yield from Folders(prepared / "input", prepared / "target").pairs()
    else:
        yield from _reds(re.compile(r"[^/]+/\d{6}\d9"))(folder)


def _reds(frames: re.Pattern[str]) -> Callable[[Path], Iterator[Pair]]:
    def find(folder: Path) -> Iterator[Pair]:
        for pair in _pairs_of(find_folders(folder, "reds", "val")):
            if frames.fullmatch(pair.name):
                yield replace(pair, name=pair.name.replace("/", "_"))

    return find


def _gopro(blur: str) -> Callable[[Path], Iterator[Pair]]:
    def find(folder: Path) -> Iterator[Pair]:
        nested = "GOPRO_Large/GOPRO_Large/test"  # as the zip file unpacks
        root = _first(folder, nested, "GOPRO_Large/test", "test") or folder
        flattened = find_folders(root, "plain", "test")  # as for MPRNet
        for pair in _pairs_of(flattened or find_folders(root, "gopro", "test", blur)):
            yield replace(pair, name=pair.name.replace("/", "_"))

    return find


def _gfn_x4(folder: Path) -> Iterator[Pair]:
    prepared = _first(folder, "GOPRO_Large/Validation_4x", "Validation_4x")
    if prepared is None:
        yield from _gopro("blur_gamma")(folder)
        return
    yield from Folders(prepared / "LR_Blur", prepared / "HR").pairs()


def _hide(part: str) -> Callable[[Path], Iterator[Pair]]:
    def find(folder: Path) -> Iterator[Pair]:
        root = _first(folder, "HIDE_dataset") or folder
        yield from Folders(root / "test" / part, root / "GT").pairs()

    return find


def _realblur(kind: str) -> Callable[[Path], Iterator[Pair]]:
    def find(folder: Path) -> Iterator[Pair]:
        listing = folder / f"RealBlur_{kind}_test_list.txt"
        if not listing.is_file():
            return
        for line in read_list(listing.read_bytes(), separator=b"\n"):
            reference, _, degraded = str(line).strip().partition(" ")
            if not degraded:
                continue
            path = folder / degraded
            yield Pair(f"{path.parent.parent.name}_{path.stem}", path, (folder / reference,))

    return find


def _kohler(folder: Path) -> Iterator[Pair]:
    for image in range(1, 5):
        for kernel in range(1, 13):
            name = f"{image}_{kernel}"
            frames = frames_of(folder, image, kernel)
            degraded = next(iter(_below(folder, f"Blurry{name}.png")), None)
            if degraded or frames:
                missing = folder / f"GroundTruth{name}_1.png"
                references = tuple(frames) or (missing,)
                yield Pair(name, degraded or folder / f"Blurry{name}.png", references)


def _lai(folder: Path) -> Iterator[Pair]:
    root = _first(folder, "synthetic_dataset") or folder
    for kind in filter(Path.is_dir, (root / "uniform", root / "nonuniform")):
        for path in list_pictures(kind):
            name = "_".join(path.stem.split("_")[:2])
            yield Pair(path.stem, path, (root / "ground_truth" / f"{name}.png",))


def _videos(folder: Path) -> Iterator[Pair]:
    root = _first(folder, "quantitative_datasets", "test") or folder
    for video in VIDEOS:
        for pair in Folders(root / video / "input", root / video / "GT", f"{video}_").pairs():
            yield replace(pair, group=video)


def _own(folder: Path) -> Iterator[Pair]:
    for split in ("test", "val", "validation", "train"):
        found = find_pairs(folder, split)
        if found:
            yield from found.pairs
            return


def _pairs_of(found: Iterable[Folders]) -> Iterator[Pair]:
    return (pair for folders in found for pair in folders.pairs())


def _below(folder: Path, pattern: str) -> list[Path]:
    found = sorted((path.relative_to(folder) for path in folder.rglob(pattern)), key=natural_key)
    return [folder / path for path in found if not any(map(is_hidden, path.parts))]


def _first(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


# The test part of the 71 videos, in the order of the dataset's authors.
VIDEOS = (
    "IMG_0030", "IMG_0049", "IMG_0021", "720p_240fps_2", "IMG_0032",
    "IMG_0033", "IMG_0031", "IMG_0003", "IMG_0039", "IMG_0037",
)  # fmt: skip
_CREDIT = "CC BY 4.0, Nah et al."
_REDS_REVISION = "62dc25d16e6f43d2214f1b365023abda86f7a0ae"


def _reds_hub(members: str) -> HubFiles:
    archives = ("val_blur_bicubic.zip", "val_sharp.zip")
    return HubFiles("snah/REDS", _REDS_REVISION, archives, members, _CREDIT)


_REDS = Dataset(
    name="reds-val",
    description="REDS validation, all 3,000 frames",
    scale=4,
    protocol="rgb",
    count=3000,
    find=_reds(re.compile(r"[^/]+/\d{8}")),
    layout="val/val_blur_bicubic/X4/000/00000009.png and val/val_sharp/000/00000009.png",
    home="https://seungjunnah.github.io/Datasets/reds",
    shared="REDS",
    hub=_reds_hub(r".*\.png"),
)
_GOPRO = Dataset(
    name="gopro",
    description="GoPro test, blur_gamma (DeepDeblur-PyTorch's and MPRNet's)",
    scale=1,
    protocol="mprnet",
    count=1111,
    find=_gopro("blur_gamma"),
    layout="GOPRO_Large/test/GOPR0384_11_00/{blur,blur_gamma,sharp}/000001.png",
    home="https://seungjunnah.github.io/Datasets/gopro",
    hub=HubFiles("snah/GOPRO_Large", "main", (), r"(.*/)?test/.*\.png", _CREDIT),
    shared="GOPRO_Large",
)
DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        replace(
            _REDS,
            name="reds-val300",
            description="REDS validation, frames 9, 19 ... 99 of each sequence (CNLRN, Shoyan)",
            protocol="cnlrn",
            count=300,
            find=_val300,
            hub=_reds_hub(r".*\d{7}9\.png"),
        ),
        _REDS,
        _GOPRO,
        replace(
            _GOPRO,
            name="gopro-linear",
            description="GoPro test, linear blur (attentive-deblur's)",
            protocol="attentive-deblur",
            find=_gopro("blur"),
        ),
        replace(
            _GOPRO,
            name="gopro-x4",
            description="GoPro test, blur_gamma cut to multiples of 16 and shrunk x4 (GFN's)",
            scale=4,
            protocol="gfn",
            find=_gfn_x4,
            layout=_GOPRO.layout + ", or GFN's Validation_4x/{LR_Blur,HR}/0001.png",
            shrink=4,
            crop_multiple=16,
        ),
        *(
            Dataset(
                name=name,
                description=f"HIDE, people from {where}",
                scale=1,
                protocol="mprnet",
                count=count,
                find=_hide(folder),
                layout=f"HIDE_dataset/test/{folder}/ and HIDE_dataset/GT/",
                home="https://github.com/joanshen0508/HA_deblur",
            )
            for name, where, count, folder in (
                ("hide-1", "afar", 1063, "test-long-shot"),
                ("hide-2", "near", 962, "test-close-ups"),
            )
        ),
        *(
            Dataset(
                name=f"realblur-{kind.lower()}",
                description=f"RealBlur-{kind} test, real camera shake",
                scale=1,
                protocol="realblur",
                count=980,
                find=_realblur(kind),
                layout=f"RealBlur_{kind}_test_list.txt and the folders that it names",
                home="https://github.com/rimchang/RealBlur",
            )
            for kind in ("J", "R")
        ),
        *(
            Dataset(
                name="kohler" if scale == 1 else "kohler-x4",
                description="Koehler et al.: 4 pictures x 12 recorded camera paths"
                + ("" if scale == 1 else ", shrunk x4"),
                scale=scale,
                protocol="kohler",
                count=48,
                find=_kohler,
                layout="Blurry1_1.png to Blurry4_12.png and GroundTruth1_1.mat, or a "
                "GroundTruth1_1_1.png for each frame",
                home="https://webdav.tuebingen.mpg.de/pixel/benchmark4camerashake",
                shared="kohler",
                shrink=scale,
                crop_multiple=4 * scale if scale > 1 else 1,  # as GFN cuts GoPro
            )
            for scale in (1, 4)
        ),
        *(
            Dataset(
                name="lai" if scale == 1 else "lai-x4",
                description="Lai et al., CVPR 2016: 100 uniform and 100 non-uniform blurs of 25"
                + ("" if scale == 1 else ", shrunk x4"),
                scale=scale,
                protocol="rgb",
                count=200,
                find=_lai,
                layout="synthetic_dataset/{ground_truth,uniform,nonuniform}/manmade_01...png",
                home="http://vllab.ucmerced.edu/wlai24/cvpr16_deblur_study",
                shared="lai",
                shrink=scale,
                crop_multiple=scale,
            )
            for scale in (1, 4)
        ),
        Dataset(
            name="videodeblurring",
            description="Su et al., CVPR 2017: frames of the ten test videos",
            scale=1,
            protocol="rgb",
            count=None,
            find=_videos,
            layout="quantitative_datasets/VIDEO/{input,GT}/00000.jpg",
            home="http://www.cs.ubc.ca/labs/imager/tr/2017/DeepVideoDeblurring",
        ),
    )
}


def pair_folder_dataset(folder: Path, scale: int | None) -> Dataset:
    """Return a folder of pairs as a dataset; a scale of None stands for that of the first pair."""
    if scale is None:
        first = next(_own(folder), None)
        sizes = [read_size(path) for path in (first.degraded, first.reference)] if first else []
        known = [size for size in sizes if size is not None]
        scale = max(1, known[1][0] // known[0][0]) if len(known) == 2 else 1
    return Dataset(
        name=absolute(folder).name,
        description=f"pairs in {folder}",
        scale=scale,
        protocol="rgb",
        count=None,
        find=_own,
        layout="a layout of pairs: " + KNOWN.partition(": ")[2],
        home=USER_DATA,
    )
