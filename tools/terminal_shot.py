"""Draw the pictures of the terminal for the documentation: real runs at 80 columns.

python tools/terminal_shot.py docs

`terminal.svg` are commands as they end; `terminal-bar.svg` is a run at work, as it stands on the
screen at its second tile. What was printed goes through a terminal emulator, colours included.
"""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import pyte
from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

ROOT = Path(__file__).parent.parent
SHAKEN = ROOT / "examples" / "shaken" / "motorcycle.png"
COLUMNS, ROWS = 80, 50
COMMANDS = ("restore image shaken.jpg --size keep", "restore image small.png", "restore models")
AT_WORK = "restore image shaken.jpg -m gfn -x4 -t 320 -o large.jpg"
# Without the addresses of fonts that rich's own template fetches.
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" \
xmlns="http://www.w3.org/2000/svg"><style>
.{unique_id}-matrix {{ font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace; \
font-size: {char_height}px; line-height: {line_height}px; }}
{styles}</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}<g transform="translate({terminal_x}, {terminal_y})" \
clip-path="url(#{unique_id}-clip-terminal)">{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""


def main() -> None:
    """Run and draw."""
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        with Image.open(SHAKEN) as photo:
            photo.convert("RGB").save(work / "shaken.jpg", quality=95)
            photo.convert("RGB").resize((148, 100)).save(work / "small.png")
        ended = [line for command in COMMANDS for line in session(command, work)]
        draw(ended, target / "terminal.svg")
        draw(session(AT_WORK, work, until="tile 2 of"), target / "terminal-bar.svg")


def session(command: str, folder: Path, until: str = "") -> list[Text]:
    """Return the terminal's screen after a command, or as soon as it shows a text."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    environment.pop("COLUMNS", None)
    arguments = [sys.executable, "-m", "restore_cli", *shlex.split(command)[1:]]
    process = subprocess.Popen(
        arguments, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment
    )
    os.close(theirs)
    while piece := read(ours):
        stream.feed(piece)
        if until and any(until in line for line in screen.display):
            process.terminate()
            break
    process.wait()
    os.close(ours)
    lines = [line_of(screen, row) for row in range(ROWS)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    return [Text.assemble(("$ ", "bold green"), (command, "bold")), *lines, Text()]


def read(terminal: int) -> bytes:
    """Read what is printed next; nothing when the program has ended."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def line_of(screen: pyte.Screen, row: int) -> Text:
    """Draw a line of the screen in its colours."""
    line = Text()
    for column in range(COLUMNS):
        cell = screen.buffer[row][column]
        colour = None if cell.fg == "default" else colour_of(cell.fg)
        line.append(cell.data, Style(color=colour, bold=cell.bold))
    line.rstrip()
    return line


def colour_of(name: str) -> Color:
    """Convert a colour as the emulator names it: a word, or six hexadecimal digits."""
    words = {"brown": "yellow", "brightbrown": "bright_yellow"}
    digits = len(name) == 6 and all(digit in "0123456789abcdef" for digit in name)
    return Color.parse(f"#{name}" if digits else words.get(name, name))


def draw(lines: list[Text], target: Path) -> None:
    """Draw a terminal as a picture."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        for line in lines[:-1]:
            console.print(line, soft_wrap=True)
        svg = console.export_svg(title="", code_format=FORMAT, unique_id=target.stem)
    target.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
