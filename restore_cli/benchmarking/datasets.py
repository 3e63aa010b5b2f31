"""The datasets of the field by name: where their pictures lie, how many, what they ask for.

Every finder takes the layouts that the dataset is published or passed on in; what is missing is
named with what was expected where.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from restore_cli.benchmarking.trajectory import frames_of
from restore_cli.errors import NoInputError, unknown_name
from restore_cli.image.folders import by_number, is_hidden, list_folders, list_pictures
from restore_cli.layouts import find_pairs

NAMED = 3  # missing things that an error names


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture to restore.

    Attributes:
        name: unique in its dataset.
        degraded: picture file.
        references: one file; for Koehler's camera paths, one a frame, or a `.mat` with all.
        group: that papers print a mean of, such as a video; or "".
    """

    name: str
    degraded: Path
    references: tuple[Path, ...]
    group: str = ""


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Zip files of a dataset repository on the Hub, pinned to a commit.

    Attributes:
        repository: `owner/name`.
        revision: commit, or branch where no commit is known.
        archives: to fetch; none for every zip file there.
        members: regular expression of the files in them that are unpacked.
        licence: of the pictures, with whom to credit.
    """

    repository: str
    revision: str
    archives: tuple[str, ...]
    members: str
    licence: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """A set of pictures with the task and the protocol they stand for.

    Attributes:
        name: on the command line; also its folder below the data root.
        description: one line.
        scale: 4 or 1.
        protocol: the usual one.
        count: samples of the whole set; None where it is not fixed.
        find: folder -> samples in order.
        layout: what a folder of it looks like, for errors and help.
        hub: where it is fetched from; None where its owners want it fetched by hand.
        home: of the dataset.
        shrink: the degraded pictures are shrunk by this, bicubic, to 8 bits, before restoring.
        whole: sides of the reference are cut to multiples of this.
        shared: folder below the data root that several names look into, or "".
    """

    name: str
    description: str
    scale: int
    protocol: str
    count: int | None
    find: Callable[[Path], Iterator[Sample]]
    layout: str
    home: str
    hub: HubFiles | None = None
    shrink: int = 1
    whole: int = 1
    shared: str = ""

    def folder(self, root: Path) -> Path:
        """Where it lies, or is to be put: a folder of its own name, else the shared one."""
        own = root / self.name
        return root / self.shared if self.shared and not own.is_dir() else own


def find_samples(dataset: Dataset, folder: Path) -> list[Sample]:
    """All samples that are there; `Dataset.count` says how many there should be.

    Raises:
        NoInputError: a folder, or a file of a pair, is missing.
    """
    if not folder.is_dir():
        raise NoInputError(
            f"dataset '{dataset.name}' is not in '{folder}'",
            hint=f"expected {dataset.layout}; see {dataset.home}"
            + (", or add --fetch" if dataset.hub else ""),
        )
    samples = list(dataset.find(folder))
    if not samples:
        raise NoInputError(
            f"nothing of dataset '{dataset.name}' in '{folder}'", hint=f"expected {dataset.layout}"
        )
    missing = [path for s in samples for path in (s.degraded, *s.references) if not path.is_file()]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        names = ", ".join(str(path.relative_to(folder)) for path in missing[:NAMED])
        raise NoInputError(
            f"dataset '{dataset.name}' in '{folder}' lacks {names}{more}",
            hint=f"expected {dataset.layout}",
        )
    return samples


def _val300(folder: Path) -> Iterator[Sample]:
    """As CNLRN and Shoyan prepare it, else among all frames."""
    prepared = folder / "Val300"
    if (prepared / "blur_bicubic_X4").is_dir():  # CNLRN's
        yield from _beside(prepared / "blur_bicubic_X4", prepared / "sharp")
    elif (prepared / "input").is_dir():  # Shoyan's: 0.png to 299.png
        samples = list(_beside(prepared / "input", prepared / "target"))
        yield from sorted(samples, key=lambda sample: (len(sample.name), sample.name))
    else:
        yield from _reds(re.compile(r"\d{6}\d9"))(folder)


def _reds(frames: re.Pattern[str]) -> Callable[[Path], Iterator[Sample]]:
    def find(folder: Path) -> Iterator[Sample]:
        blurry = _first(
            folder,
            "val_blur_bicubic/val/val_blur_bicubic/X4",
            "val/val_blur_bicubic/X4",
            "val_blur_bicubic/X4",
        )
        sharp = _first(folder, "val_sharp/val/val_sharp", "val/val_sharp", "val_sharp")
        for path in list_pictures(blurry, recursive=True, suffixes=(".png",)) if blurry else ():
            if path.parent.parent == blurry and frames.fullmatch(path.stem):
                other = (sharp or folder / "val/val_sharp") / path.parent.name / path.name
                yield Sample(f"{path.parent.name}_{path.stem}", path, (other,))

    return find


def _gopro(blur: str) -> Callable[[Path], Iterator[Sample]]:
    def find(folder: Path) -> Iterator[Sample]:
        nested = "GOPRO_Large/GOPRO_Large/test"  # as the zip file unpacks
        root = _first(folder, nested, "GOPRO_Large/test", "test") or folder
        if (root / "input").is_dir():  # flattened, as for MPRNet
            yield from _beside(root / "input", root / "target")
            return
        for sequence in list_folders(root):
            for path in _pictures(sequence / blur):
                name = f"{sequence.name}_{path.stem}"
                yield Sample(name, path, (sequence / "sharp" / path.name,))

    return find


def _gfn_x4(folder: Path) -> Iterator[Sample]:
    prepared = _first(folder, "GOPRO_Large/Validation_4x", "Validation_4x")
    if prepared is None:
        yield from _gopro("blur_gamma")(folder)
        return
    yield from _beside(prepared / "LR_Blur", prepared / "HR")


def _hide(part: str) -> Callable[[Path], Iterator[Sample]]:
    def find(folder: Path) -> Iterator[Sample]:
        root = _first(folder, "HIDE_dataset") or folder
        for path in _pictures(root / "test" / part):
            yield Sample(path.stem, path, (root / "GT" / path.name,))

    return find


def _realblur(kind: str) -> Callable[[Path], Iterator[Sample]]:
    def find(folder: Path) -> Iterator[Sample]:
        listing = folder / f"RealBlur_{kind}_test_list.txt"
        if not listing.is_file():
            return
        for line in listing.read_text("utf-8-sig").splitlines():
            reference, _, degraded = line.strip().partition(" ")
            if not degraded:
                continue
            path = folder / degraded
            yield Sample(f"{path.parent.parent.name}_{path.stem}", path, (folder / reference,))

    return find


def _kohler(folder: Path) -> Iterator[Sample]:
    for image in range(1, 5):
        for kernel in range(1, 13):
            name = f"{image}_{kernel}"
            frames = frames_of(folder, image, kernel)
            degraded = next(iter(_below(folder, f"Blurry{name}.png")), None)
            if degraded or frames:
                missing = folder / f"GroundTruth{name}_1.png"
                references = tuple(frames) or (missing,)
                yield Sample(name, degraded or folder / f"Blurry{name}.png", references)


def _lai(folder: Path) -> Iterator[Sample]:
    root = _first(folder, "synthetic_dataset") or folder
    for kind in ("uniform", "nonuniform"):
        for path in _pictures(root / kind):
            name = "_".join(path.stem.split("_")[:2])
            yield Sample(path.stem, path, (root / "ground_truth" / f"{name}.png",))


def _videos(folder: Path) -> Iterator[Sample]:
    root = _first(folder, "quantitative_datasets", "test") or folder
    for video in VIDEOS:
        for path in _pictures(root / video / "input"):
            reference = root / video / "GT" / path.name
            yield Sample(f"{video}_{path.stem}", path, (reference,), group=video)


def _pairs(folder: Path) -> Iterator[Sample]:
    for split in ("test", "val", "validation", "train"):
        found = find_pairs(folder, split)
        if found:
            for pair in found.pairs:
                yield Sample(pair.name, pair.degraded, (pair.reference,))
            return


def _beside(degraded: Path, reference: Path) -> Iterator[Sample]:
    for path in _pictures(degraded):
        yield Sample(path.stem, path, (reference / path.name,))


def _pictures(folder: Path) -> list[Path]:
    return list_pictures(folder) if folder.is_dir() else []


def _below(folder: Path, pattern: str) -> list[Path]:
    found = sorted((path.relative_to(folder) for path in folder.rglob(pattern)), key=by_number)
    return [folder / path for path in found if not any(map(is_hidden, path.parts))]


def _first(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


# The test part of the 71 videos, in the order of the dataset's authors.
VIDEOS = (
    "IMG_0030", "IMG_0049", "IMG_0021", "720p_240fps_2", "IMG_0032",
    "IMG_0033", "IMG_0031", "IMG_0003", "IMG_0039", "IMG_0037",
)  # fmt: skip
_REDS_LAYOUT = "val/val_blur_bicubic/X4/000/00000009.png and val/val_sharp/000/00000009.png"
_REDS_HOME = "https://seungjunnah.github.io/Datasets/reds"
_REDS_REVISION = "62dc25d16e6f43d2214f1b365023abda86f7a0ae"
_GOPRO_LAYOUT = "GOPRO_Large/test/GOPR0384_11_00/{blur,blur_gamma,sharp}/000001.png"
_GOPRO_HOME = "https://seungjunnah.github.io/Datasets/gopro"
_CREDIT = "CC BY 4.0, Nah et al."
_GOPRO_HUB = HubFiles("snah/GOPRO_Large", "main", (), r"(.*/)?test/.*\.png", _CREDIT)


def _reds_hub(members: str) -> HubFiles:
    archives = ("val_blur_bicubic.zip", "val_sharp.zip")
    return HubFiles("snah/REDS", _REDS_REVISION, archives, members, _CREDIT)


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="reds-val300",
            description="REDS validation, frames 9, 19 ... 99 of each sequence (CNLRN, Shoyan)",
            scale=4,
            protocol="cnlrn",
            count=300,
            find=_val300,
            layout=_REDS_LAYOUT,
            home=_REDS_HOME,
            shared="REDS",
            hub=_reds_hub(r".*\d{7}9\.png"),
        ),
        Dataset(
            name="reds-val",
            description="REDS validation, all 3,000 frames",
            scale=4,
            protocol="rgb",
            count=3000,
            find=_reds(re.compile(r"\d{8}")),
            layout=_REDS_LAYOUT,
            home=_REDS_HOME,
            shared="REDS",
            hub=_reds_hub(r".*\.png"),
        ),
        Dataset(
            name="gopro",
            description="GoPro test, blur_gamma (DeepDeblur-PyTorch's and MPRNet's)",
            scale=1,
            protocol="mprnet",
            count=1111,
            find=_gopro("blur_gamma"),
            layout=_GOPRO_LAYOUT,
            home=_GOPRO_HOME,
            hub=_GOPRO_HUB,
            shared="GOPRO_Large",
        ),
        Dataset(
            name="gopro-linear",
            description="GoPro test, linear blur (attentive-deblur's)",
            scale=1,
            protocol="attentive-deblur",
            count=1111,
            find=_gopro("blur"),
            layout=_GOPRO_LAYOUT,
            home=_GOPRO_HOME,
            hub=_GOPRO_HUB,
            shared="GOPRO_Large",
        ),
        Dataset(
            name="gopro-x4",
            description="GoPro test, blur_gamma cut to multiples of 16 and shrunk x4 (GFN's)",
            scale=4,
            protocol="gfn",
            count=1111,
            find=_gfn_x4,
            layout=_GOPRO_LAYOUT + ", or GFN's Validation_4x/{LR_Blur,HR}/0001.png",
            home=_GOPRO_HOME,
            hub=_GOPRO_HUB,
            shared="GOPRO_Large",
            shrink=4,
            whole=16,
        ),
        Dataset(
            name="hide-1",
            description="HIDE, people from afar",
            scale=1,
            protocol="mprnet",
            count=1063,
            find=_hide("test-long-shot"),
            layout="HIDE_dataset/test/test-long-shot/1fromGOPR0950.png and HIDE_dataset/GT/...",
            home="https://github.com/joanshen0508/HA_deblur",
        ),
        Dataset(
            name="hide-2",
            description="HIDE, people from near",
            scale=1,
            protocol="mprnet",
            count=962,
            find=_hide("test-close-ups"),
            layout="HIDE_dataset/test/test-close-ups/ and HIDE_dataset/GT/",
            home="https://github.com/joanshen0508/HA_deblur",
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
                whole=4 * scale if scale > 1 else 1,  # as GFN cuts GoPro
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
                whole=scale,
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


def get_dataset(name: str, folder: Path, scale: int) -> Dataset:
    """A dataset by name, or any folder of pairs.

    Args:
        name: of the table, or a path.
        folder: that the name means, if it is a path.
        scale: of the models, for a folder of pairs.

    Raises:
        UsageError: neither.
    """
    if name in DATASETS:
        return DATASETS[name]
    if not folder.is_dir():
        raise unknown_name("dataset", name, DATASETS)
    return Dataset(
        name=folder.name,
        description=f"pairs in {folder}",
        scale=scale,
        protocol="rgb",
        count=None,
        find=_pairs,
        layout="lr/ and hr/, input/ and target/, REDS or GoPro",
        home="your own",
    )
