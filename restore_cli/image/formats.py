"""All formats by name and by suffix, and what files of other kinds are recognised by."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from restore_cli.image import kinds
from restore_cli.image.format_spec import Format
from restore_cli.image.raw import RAW_SUFFIXES


def _found() -> list[Format]:
    names = sorted(one.name for one in iter_modules(kinds.__path__))
    return [import_module(f"{kinds.__name__}.{name}").FORMAT for name in names]


KINDS = {kind.key: kind for kind in _found()}  # by the name of the module
FORMATS = {key: kind for key, kind in KINDS.items() if kind.save}  # those that can be written
SUFFIXES = {suffix: key for key, kind in FORMATS.items() for suffix in kind.suffixes}
READ_ONLY = {suffix: key for key, kind in KINDS.items() for suffix in kind.read_suffixes}
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
OTHER_SUFFIXES = RAW_SUFFIXES | {  # pictures that are not supported
    *(".exr", ".jp2", ".jxl", ".pdf", ".pgm", ".ppm", ".psd", ".svg", ".tga", ".xcf"),
}

HEAD = 256  # bytes by which a format is recognised
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
    return next((key for key, kind in KINDS.items() if kind.recognise(head)), None)
