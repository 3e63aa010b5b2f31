"""Formatting of numbers, times and messages for people: command line, page and reports."""

from __future__ import annotations

import re
from collections.abc import Sequence


def format_count(count: int, noun: str, plural: str = "") -> str:
    """Format a number with its noun.

    >>> format_count(1, "pair"), format_count(1200, "pair"), format_count(0, "entry", "entries")
    ('1 pair', '1,200 pairs', '0 entries')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def format_list(names: Sequence[str], most: int) -> str:
    """List the first names, and how many more there are.

    >>> format_list(["a", "b", "c"], 3), format_list(["a", "b", "c"], 1)
    ('a, b, c', 'a and 2 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class.

    >>> first_line(ValueError("no number")), first_line(EOFError())
    ('no number', 'EOFError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def reason_of(error: BaseException) -> str:
    """Say why something failed: the system's words, without number and file, or `first_line`.

    >>> reason_of(FileNotFoundError(2, "No such file", "a.png")), reason_of(ValueError("no number"))
    ('No such file', 'no number')
    """
    return str(getattr(error, "strerror", None) or first_line(error))


def format_bytes(number: float) -> str:
    """Format a number of bytes, never as "0.0 GB".

    >>> format_bytes(2.5e9), format_bytes(230_400), format_bytes(0)
    ('2.5 GB', '0.2 MB', '0 bytes')
    """
    if number < 1e5:
        return f"{number:,.0f} bytes"
    return f"{number / 1e6:.1f} MB" if number < 1e9 else f"{number / 1e9:.1f} GB"


def format_pixels(number: int) -> str:
    """Format a number of pixels, never as "0.0 megapixels".

    >>> format_pixels(192_000_000), format_pixels(307_200), format_pixels(4800)
    ('192 megapixels', '0.3 megapixels', '4,800 pixels')
    """
    if number < 1e5:
        return format_count(number, "pixel")
    return f"{number / 1e6:.{0 if number >= 1e7 else 1}f} megapixels"


def format_duration(seconds: float) -> str:
    """Format a duration in seconds, never as "0.0 minutes".

    >>> [format_duration(seconds) for seconds in (0.2, 41, 100, 3700, 200000)]
    ['less than a second', '41 s', '1 min 40 s', '1 h 02 min', '2 days 8 h']
    """
    if seconds < 1:
        return "less than a second"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10 and rest:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours == 0:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} days {hours} h"


def format_clock(seconds: float) -> str:
    """Format seconds as a progress bar shows them.

    >>> format_clock(7.4), format_clock(754), format_clock(7500)
    ('0:07', '12:34', '2:05:00')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def for_python(text: str) -> str:
    """Name arguments of the Python interface in a message, not options of the command line.

    >>> for_python("use --tile 192 or more, or a smaller --overlap")
    'use tile=192 or more, or a smaller overlap'
    >>> for_python("--model 'gfn+' lacks a name: use --no-tlsc or --device cpu")
    "model='gfn+' lacks a name: use tlsc=False or device='cpu'"
    >>> for_python("use --tlsc-window PIXELS or --no-tlsc")
    'use tlsc=PIXELS or tlsc=False'
    >>> for_python("use --model maxim")
    "use model='maxim'"
    """
    text = re.sub(r"--no-tlsc\b", "tlsc=False", text)
    text = re.sub(r"--tlsc-window\b", "--tlsc", text).replace("--tlsc PIXELS", "tlsc=PIXELS")
    text = re.sub(r"--(tlsc|self-ensemble)\b", lambda found: f"--{found[1]} True", text)
    text = re.sub(r"--(tile|overlap|tlsc|self-ensemble) (\d+|True)", r"--\1=\2", text)
    text = re.sub(r"--(device|precision) ([a-z]+[\d:]*)(?= |,|$)", r"--\1='\2'", text)
    text = re.sub(r"--(model|weights) ('[^']*'|[A-Z]\S*)", r"--\1=\2", text)
    text = re.sub(r"--(model|weights) ([a-z][\w.-]*)(?=$|,)", r"--\1='\2'", text)
    names = "model|weights|device|precision|tile|overlap|tlsc|self-ensemble|scale|size"
    names += "|output|resume|on-exists"
    return re.sub(rf"--({names})\b", lambda found: found[1].replace("-", "_"), text)
