"""File formats: names, suffixes, signatures and limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MAX_PIXELS = 268_000_000
HDR = {16: "PQ", 18: "HLG"}  # transfers of high dynamic range, by their numbers in ITU-T H.273


@dataclass(frozen=True, slots=True)
class Format:
    """A format that is read and written."""

    suffixes: tuple[str, ...]  # suffixes, the usual one first
    longest_side: int  # longest side in pixels
    depth: int  # most bits per channel
    alpha: bool  # whether transparency is supported
    # smallest ratio of file size to bytes of pixels, for the check of disk space: half of the
    # minimum over 24 photos, blurred and enlarged by bicubic interpolation
    least_bytes: float
    cmyk: bool = False  # whether CMYK is supported
    # whether one channel is supported; else grey is stored as three equal channels
    grey: bool = True


FORMATS = {
    "png": Format((".png",), 2**31 - 1, 16, alpha=True, least_bytes=0.09),
    "jpeg": Format(
        (".jpg", ".jpeg", ".jpe", ".jfif"), 65_535, 8, alpha=False, least_bytes=0.023, cmyk=True
    ),
    "webp": Format((".webp",), 16_383, 8, alpha=True, least_bytes=0.06, grey=False),
    "tiff": Format((".tif", ".tiff"), 2**31 - 1, 16, alpha=True, least_bytes=0.09, cmyk=True),
    "avif": Format((".avif",), 16_384, 12, alpha=True, least_bytes=0.009, grey=False),
}
SUFFIXES = {suffix: key for key, kind in FORMATS.items() for suffix in kind.suffixes}
READ_ONLY = {
    ".bmp": "bmp",
    ".gif": "gif",
    ".mpo": "jpeg",
    **dict.fromkeys((".heic", ".heif", ".hif"), "heic"),  # the last is of cameras
}
# Containers of videos that can be written, by suffix, as PyAV names them.
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# Suffixes of containers that are not written -> of one that holds the same audio.
SIMILAR_CONTAINERS = {".3gp": ".mp4", ".3g2": ".mp4", ".f4v": ".mp4", ".qt": ".mov"}
VIDEO_SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx", ".wmv", ".asf", ".flv"),
        *(".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".m2t", ".3gp", ".3g2", ".ogv"),
        *(".mxf", ".dv", ".f4v", ".m1v", ".mpe", ".mpv", ".m2p", ".ogm", ".rm", ".rmvb", ".y4m"),
        *(".nut", ".ivf", ".h264", ".264", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg", ".mod"),
        *(".tod", ".trp", ".wtv", ".gxf", ".lrv", ".insv", ".3gpp", ".3gp2", ".mk3d", ".mp4v"),
        *(".tp", ".dav", ".ogg", ".ogx", ".av1", ".obu", ".amv", ".m4s"),
    }
)
PHOTO_SUFFIXES = (*SUFFIXES, *READ_ONLY)  # files that are read from folders
RAW_SUFFIXES = frozenset(  # of cameras
    {
        *(".3fr", ".arw", ".bay", ".cap", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff"),
        *(".gpr", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf"),
        *(".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    }
)
OTHER_SUFFIXES = RAW_SUFFIXES | {  # pictures that are not supported
    *(".exr", ".jp2", ".jxl", ".pdf", ".pgm", ".ppm", ".psd", ".svg", ".tga", ".xcf"),
}

HEAD = 256  # bytes by which a format is recognised
# Signatures at the beginning of files. HEIF's brands come after the length of the first box.
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"BM": "bmp",
}
_BRANDS = {b"avif": "avif", b"avis": "avif"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "heic"
)

# Places of the first two packets' sync byte in an MPEG transport stream, and in that of cameras.
_TRANSPORT = ((0, 188), (4, 196))
# Of videos, which are recognised by their suffix: offset and bytes.
_VIDEOS = (
    *((4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (8, b"AVI "), (0, b"\x1aE\xdf\xa3")),
    *((0, b"\0\0\1\xba"), (0, b"\0\0\1\xb3"), (0, b"OggS"), (0, b"DKIF"), (0, b".RMF")),
    *((0, b"\x06\x0e\x2b\x34"), (0, b"FLV\1"), (0, b"0&\xb2u\x8ef\xcf\x11"), (0, b"YUV4MPEG2 ")),
)


def has_video_suffix(path: Path) -> bool:
    """Whether a file is taken for a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_video(head: bytes) -> bool:
    """Whether a file that is not a known picture looks like a video by its first bytes."""
    packets = any(head[a : a + 1] == head[b : b + 1] == b"G" for a, b in _TRANSPORT)
    return packets or any(head[place:].startswith(magic) for place, magic in _VIDEOS)


def recognise(head: bytes) -> str | None:
    """Recognise the format of a file by its first bytes; None if it is not a known picture."""
    for magic, key in _MAGIC.items():
        if head.startswith(magic):
            return key
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        # The major brand may be generic; the specific one is then among the compatible brands.
        end = min(int.from_bytes(head[:4], "big"), HEAD)
        brands = [head[8:12], *(head[n : n + 4] for n in range(16, end, 4))]
        known = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return "avif" if "avif" in known else known[0] if known else None
    return None
