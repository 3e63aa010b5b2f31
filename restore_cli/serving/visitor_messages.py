"""Adapts messages for visitors of the page, who cannot use options of the command line."""

from __future__ import annotations

import re

_REMEDIES = (
    (r"raise --max-pixels if you trust it", "make it smaller first"),
    (r"use (?:--icc \w+, and )?--format (\w+)[^()]*", r"choose \1 as the file format"),
    (r"pip install [^()]*", "save it as JPEG or PNG first"),
    # of a disk of the server
    (
        r"choose another --output, or a smaller --format such as jpeg|free disk space"
        r"|raise the limit on the size of files[^)]*\)[^()]*|delete files: your quota[^()]*",
        "tell the owner of this page",
    ),
)
_UNUSABLE = re.compile(r" \([^()]*(?:--\w|`)[^()]*\)|; [^;()]*(?:--\w|`)[^;()]*")
_NAME = re.compile(r"'[^']*'")  # of files, which may look like options
_OPTION = re.compile(r"--(?=\w)")


def for_visitors(text: str) -> str:
    """Remove from an error or a note what only the command line can do.

    >>> for_visitors("'a.png' is 9x9, the limit is 8 (raise --max-pixels if you trust it)")
    "'a.png' is 9x9, the limit is 8 (make it smaller first)"
    >>> for_visitors("it is large (use --tile 64 or more); `restore models` has faster ones")
    'it is large'
    >>> for_visitors("cannot read 'Anna (1--2).jpg': broken")
    "cannot read 'Anna (1--2).jpg': broken"
    """
    names: list[str] = []

    def hide(found: re.Match[str]) -> str:
        names.append(found[0])
        return f"\0{len(names) - 1}\0"

    text = _NAME.sub(hide, text)
    for pattern, remedy in _REMEDIES:
        text = re.sub(pattern, remedy, text)
    text = _OPTION.sub("", _UNUSABLE.sub("", text))
    return re.sub("\0(\\d+)\0", lambda found: names[int(found[1])], text)
