"""Mutate files by their structure and put them through read, info and write.

    python tools/fuzz.py --count 20000 --seed 0

Chunks, segments, boxes, entries of directories and EBML elements are moved, cut, doubled and bent.
A case fails when anything but an error of ours comes out of it, when it takes longer than ten
seconds or more memory than four times what it decodes to, or when what was read is not what Pillow
reads. The last line counts; the exit status is 1 if a case failed.
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from restore_cli.errors import RestoreError
from restore_cli.image import Encoding, encode
from restore_cli.image.containers import jpeg_segment, jpeg_segments, png_chunk, png_chunks
from restore_cli.image.info import describe
from restore_cli.image.reading import decode
from restore_cli.inference.stages import Bicubic
from restore_cli.jobs.video import restore_video
from restore_cli.jobs.video_facts import describe_video

MOST_PIXELS = 250_000
SLOW = 10.0  # seconds
SLACK = 96 << 20  # bytes that libraries take once
FORMATS = ("png", "jpeg", "webp", "tiff")
VIDEOS = {"mp4": "mp4", "mkv": "matroska"}


def seeds() -> dict[str, list[bytes]]:
    """Small files of every kind with everything that they can carry."""
    rng = np.random.default_rng(0)
    smooth = np.clip(
        np.add.outer(np.linspace(0, 200, 20), np.linspace(0, 50, 28))[..., None]
        + rng.integers(0, 20, (20, 28, 3)),
        0,
        255,
    ).astype(np.uint8)
    picture = Image.fromarray(smooth)
    exif = Image.Exif()
    exif[271], exif[274], exif[59932] = "Maker", 6, b"x" * 40
    exif[34853] = {1: "N", 2: (50.0, 5.0, 30.0)}
    exif[34665] = {36867: "2024:01:02 03:04:05", 37500: b"notes" * 8}
    from PIL import ImageCms  # noqa: PLC0415

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf'
        b'-syntax-ns#"><rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" dc:title="t" '
        b'rdf:about=""><dc:subject><rdf:Bag><rdf:li>a</rdf:li></rdf:Bag></dc:subject>'
        b"</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    found: dict[str, list[bytes]] = {}

    def save(key: str, image: Image.Image, **options: object) -> None:
        buffer = io.BytesIO()
        image.save(buffer, key.upper(), **options)
        found.setdefault(key, []).append(buffer.getvalue())

    carried = {"exif": exif, "icc_profile": profile}
    save("png", picture, **carried)
    save("png", picture.convert("RGBA"))
    save("png", picture.convert("P"))
    save("png", Image.fromarray(smooth[..., 0].astype(np.uint16) * 257))
    rich = found["png"][0]
    chunks = [
        (b"gAMA", struct.pack(">I", 100_000)),
        (b"cICP", bytes([9, 16, 0, 1])),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet),
        (b"tEXt", b"Author\0somebody"),
    ]
    found["png"].append(rich[:33] + b"".join(png_chunk(*one) for one in chunks) + rich[33:])
    save("jpeg", picture, xmp=packet, comment=b"hello", **carried)
    save("jpeg", picture, progressive=True, subsampling=0)
    save("jpeg", picture.convert("CMYK"))
    iptc = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0" + struct.pack(">I", 10) + b"\x1c\2\x78\0\5hello"
    plain = found["jpeg"][0]
    found["jpeg"].append(plain[:2] + jpeg_segment(0xED, iptc) + plain[2:])
    save("webp", picture, xmp=packet, **carried)
    save("webp", picture, lossless=True)
    geo = {33550: (0.5, 0.5, 0.0), 33922: (0.0,) * 6, 42113: "-9999", 700: packet, 33723: iptc[26:]}
    save("tiff", picture, tiffinfo={271: "Maker", **geo}, compression="tiff_lzw")
    save("tiff", picture.convert("L"), compression="raw")
    save("gif", picture.convert("P"), comment="hello")
    save("bmp", picture)
    save("avif", picture, **carried)
    import pillow_heif  # noqa: PLC0415

    heif = pillow_heif.from_pillow(picture)
    heif.add_from_pillow(picture.convert("L"))
    buffer = io.BytesIO()
    heif.save(buffer, exif=exif.tobytes())
    found["heic"] = [buffer.getvalue()]
    for key in VIDEOS:
        found[key] = [_video(key, smooth[:, :28])]
    return found


def _video(key: str, frame: np.ndarray) -> bytes:
    import av  # noqa: PLC0415

    with tempfile.NamedTemporaryFile(suffix=f".{key}") as file:
        with av.open(file.name, "w", format=VIDEOS[key]) as writer:
            writer.metadata["title"] = "title"
            image = writer.add_stream("libx264", rate=10)
            image.width, image.height, image.pix_fmt = 28, 20, "yuv420p"
            for _ in range(3):
                writer.mux(image.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            writer.mux(image.encode())
        return Path(file.name).read_bytes()


# Structure --------------------------------------------------------------------------------------

Piece = bytes
_NESTED = (b"meta", b"moov", b"trak", b"mdia", b"minf", b"stbl", b"iprp", b"ipco", b"iinf", b"iref")
_MASTERS = (
    b"\x18\x53\x80\x67",
    b"\x16\x54\xae\x6b",
    b"\xae",
    b"\x1f\x43\xb6\x75",
    b"\x15\x49\xa9\x66",
)


def pieces(data: bytes, key: str) -> tuple[list[Piece], Callable[[list[Piece]], bytes]]:
    """Split a file into its parts; return them and the function that joins them."""
    if key == "png":
        return [png_chunk(*one) for one in png_chunks(data)], lambda p: data[:8] + b"".join(p)
    if key == "jpeg":
        parts = [jpeg_segment(*one) for one in jpeg_segments(data)]
        rest = data[2 + sum(map(len, parts)) :]
        return [*parts, rest], lambda p: data[:2] + b"".join(p)
    if key == "webp":
        return list(_riff(data)), _riff_file
    if key == "tiff":
        return _entries(data)
    if key in ("avif", "heic", "mp4", "mkv"):
        return list((_ebml if key == "mkv" else _boxes)(data)), b"".join
    size = max(4, len(data) // 24)
    return [data[n : n + size] for n in range(0, len(data), size)], b"".join


def _riff(data: bytes) -> Iterator[Piece]:
    place = 12
    while place + 8 <= len(data):
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        yield data[place : place + 8 + length + length % 2]
        place += 8 + length + length % 2


def _riff_file(parts: list[Piece]) -> bytes:
    body = b"".join(parts)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _boxes(data: bytes) -> Iterator[Piece]:
    place = 0
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big") or len(data) - place
        yield data[place : place + max(8, size)]
        place += max(8, size)


def _ebml(data: bytes) -> Iterator[Piece]:
    place = 0
    while place < len(data):
        start = place
        first = data[place]
        length = 9 - first.bit_length() if first else 1
        kind = data[place : place + length]
        place += length
        if place >= len(data):
            yield data[start:]
            return
        size_length = 9 - data[place].bit_length() if data[place] else 1
        size = int.from_bytes(data[place : place + size_length], "big") & (
            (1 << 7 * size_length) - 1
        )
        place += size_length
        if kind in _MASTERS:
            yield data[start:place]
            continue
        yield data[start : place + size]
        place += size


def _entries(data: bytes) -> tuple[list[Piece], Callable[[list[Piece]], bytes]]:
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, place)
    parts = [data[place + 2 + 12 * n : place + 14 + 12 * n] for n in range(count)]

    def join(changed: list[Piece]) -> bytes:
        block = struct.pack(f"{order}H", len(changed)) + b"".join(changed) + bytes(4)
        start = len(data) + len(data) % 2
        return data[:4] + struct.pack(f"{order}I", start) + data[8:].ljust(start - 8, b"\0") + block

    return parts, join


def mutate(data: bytes, key: str, rng: random.Random) -> bytes:
    """Damage a file: move, cut, double or change its parts."""
    parts, join = pieces(data, key)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not parts:
            break
        n = rng.randrange(len(parts))
        action = rng.choice(("move", "cut", "double", "shorten", "bend", "nest", "length"))
        if action == "move":
            parts.insert(rng.randrange(len(parts)), parts.pop(n))
        elif action == "cut":
            parts.pop(n)
        elif action == "double":
            parts[n:n] = [parts[n]] * rng.choice((1, 1, 1, 50))
        elif action == "shorten":
            parts[n] = parts[n][: rng.randrange(len(parts[n]) + 1)]
        elif action == "nest" and parts[n][4:8] in _NESTED:
            parts[n] = _nested(parts[n], key, rng)
        elif action == "length":
            parts[n] = _bent(parts[n], rng, min(12, len(parts[n])))
        else:
            parts[n] = _bent(parts[n], rng, len(parts[n]))
    made = join(parts)
    return made[: rng.randrange(len(made) + 1)] if rng.random() < 0.05 else made


def _nested(box: bytes, key: str, rng: random.Random) -> bytes:
    head = 12 if box[4:8] == b"meta" and key != "mp4" else 8
    inside = mutate(box[head:], "mp4", rng)
    return struct.pack(">I", head + len(inside)) + box[4:head] + inside


def _bent(part: bytes, rng: random.Random, within: int) -> bytes:
    changed = bytearray(part)
    for _ in range(rng.choice((1, 2, 8)) if within else 0):
        changed[rng.randrange(within)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


# Judgement --------------------------------------------------------------------------------------


def reference(data: bytes) -> np.ndarray | None:
    """(H, W, 3) as Pillow reads it, not turned; None where nothing is read, or another thing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                if image.mode not in ("L", "RGB") or getattr(image, "n_frames", 1) > 1:
                    return None
                image.load()
                return np.asarray(image.convert("RGB"))
    except Exception:  # noqa: BLE001 — Pillow is the judge, not the accused
        return None


def judge(data: bytes, key: str, rng: random.Random, folder: Path) -> str:
    """Put a file through everything; "accepted" or "refused".

    Raises:
        AssertionError: what was read is not what Pillow reads.
    """
    path = folder / f"case.{key}"
    path.write_bytes(data)
    if key in VIDEOS:
        return _judge_video(path)
    try:
        describe(path, max_pixels=MOST_PIXELS)
        keep = decode(data, "case", max_pixels=MOST_PIXELS, icc="keep")
        picture = decode(data, "case", max_pixels=MOST_PIXELS)
    except RestoreError:
        return "refused"
    seen = reference(data)
    if seen is not None and keep.depth == 8 and keep.alpha is None and keep.colours == "rgb":
        ours = (keep.pixels[0].permute(1, 2, 0).numpy() * 255).round()
        turns = {ours.shape: [seen, seen[:, ::-1], seen[::-1], seen[::-1, ::-1]]}
        across = seen.swapaxes(0, 1)  # by which EXIF of several it is turned, is anybody's guess
        turns.setdefault(across.shape, []).extend(
            [across, across[:, ::-1], across[::-1], across[::-1, ::-1]]
        )
        fits = [one for one in turns[ours.shape] if one.shape == ours.shape]
        assert min(np.abs(ours - one).mean() for one in fits) < 3
    level = rng.choice(("all", "standard", "private", "none"))
    target = rng.choice(FORMATS if rng.random() < 0.95 else ("avif",))
    try:
        made, _ = encode(
            picture, Encoding(target, metadata=level, provenance=(("model", "x"),)), "out"
        )
    except RestoreError:
        return "accepted"  # and the format said that it cannot hold it
    again = decode(made, "out")
    assert again.size == picture.size
    return "accepted"


def _judge_video(path: Path) -> str:
    try:
        describe_video(path)
        target = path.with_name("out.mkv")
        restore_video(path, target, Bicubic(1), {}, lambda done, frames: None)
    except RestoreError:
        return "refused"
    return "accepted"


def main() -> int:
    """Run the cases that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for files that fail")
    parser.add_argument("--kinds", default="", help="only these, separated by commas")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    known = seeds()
    chosen = options.kinds.split(",") if options.kinds else sorted(known)
    # Videos and AVIF take fifty times as long as the others.
    weights = [0.15 if key in (*VIDEOS, "avif", "heic") else 1.0 for key in chosen]
    counts: Counter[str] = Counter()
    slowest = 0.0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    with tempfile.TemporaryDirectory() as name:
        for n in range(options.count):
            (key,) = rng.choices(chosen, weights)
            data = mutate(rng.choice(known[key]), key, rng)
            begun, problem = time.process_time(), ""  # of the processor: others may have it
            try:
                counts[judge(data, key, rng, Path(name))] += 1
            except Exception:  # noqa: BLE001 — all of them are findings
                problem = traceback.format_exc()
            seconds = time.process_time() - begun
            slowest = max(slowest, seconds)
            now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            if seconds > SLOW:
                problem += f"{seconds:.1f} s"
            if now - most > SLACK + 4 * MOST_PIXELS * 12:
                problem += f"{(now - most) >> 20} MB more"
            most = max(most, now)
            if problem:
                counts["failed"] += 1
                print(f"case {n} ({key}, {len(data)} bytes): {problem}", file=sys.stderr)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{options.seed}-{n}.{key}").write_bytes(data)
    print(f"{options.count} files, {dict(counts)}, slowest {slowest:.2f} s")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
