"""Files of every kind, made by other programs than ours, and read back by them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def wide_profile() -> bytes:
    """An RGB profile with the primaries of Display P3 and gamma 2.2, by hand (ICC.1:2022)."""

    def s15(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(x: float, y: float, z: float) -> bytes:
        return b"XYZ \0\0\0\0" + s15(x) + s15(y) + s15(z)

    def text(value: str) -> bytes:
        body = value.encode("utf-16-be")
        return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(body), 28) + body

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256))
    tags = {
        b"desc": text("wide"),
        b"cprt": text("CC0"),
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.51512, 0.24120, -0.00105),
        b"gXYZ": xyz(0.29198, 0.69225, 0.04189),
        b"bXYZ": xyz(0.15710, 0.06657, 0.78407),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        padded = value + b"\0" * (-len(value) % 4)
        table += struct.pack(">4sII", name, start + len(body), len(padded))
        body += padded
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    header += b"\0" * 12 + b"acsp" + b"\0" * 28 + s15(0.9642) + s15(1.0) + s15(0.8249)
    header += b"\0" * (128 - len(header))
    return header + struct.pack(">I", len(tags)) + table + body


def values(channels: int, depth: int = 8, height: int = 12, width: int = 17) -> np.ndarray:
    """Random values; alpha, if it is one, is never 0: colour under it would be replaced."""
    kind = np.uint8 if depth == 8 else np.uint16
    array = np.random.default_rng(0).integers(0, 2**depth, (height, width, channels), kind)
    if channels in (2, 4):
        array[..., -1] |= 1
    return array


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    """By Pillow with 8 bits, by OpenCV (its TIFF and PNG writers) with 16."""
    if array.dtype == np.uint16:
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[-1]]
        done, content = cv2.imencode(path.suffix, array[..., order])
        assert done
        path.write_bytes(content.tobytes())
        return path
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(path, **options)
    return path


def load16(path: Path) -> np.ndarray:
    """(H, W, C) as OpenCV reads it, all bits."""
    array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    array = array[..., None] if array.ndim == 2 else array
    return array[..., {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[-1]]]


def jpeg(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", **options)
    return buffer.getvalue()
