"""Credits of photos as Markdown.

    python tools/credits.py train_photos.csv > MODEL_CARDS/training-photos.md
    python tools/credits.py val_photos.csv --names > benchmarks/quality/photographs.md

The table needs the columns original, source, licence and credit; with --names, which lists the
names that reports use, also file, width and height.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

names = "--names" in sys.argv
by_source: dict[str, list[dict[str, str]]] = defaultdict(list)
for row in csv.DictReader(Path(sys.argv[1]).read_text("utf-8").splitlines()):
    by_source[row["source"]].append(row)
total = sum(map(len, by_source.values()))
if names:
    print("# The held-out photographs\n")
    print(
        "Name in the reports, original file, size after shrinking and cropping, licence and "
        f"credit\nof the {total} photographs that the weights are scored on. None was used in "
        "training.\n"
    )
else:
    print("# Credits of the training photos\n")
    print(f"Original file, licence and credit of each of the {total} photographs, by source.")
    gpl = [row["licence"] for rows in by_source.values() for row in rows if "GPL" in row["licence"]]
    choice = sum("CC" in licence for licence in gpl)
    print(
        f"{len(gpl) - choice} are under the GPL or LGPL, {choice} under the GPL or a Creative "
        "Commons\nlicence; the others are under Creative Commons or similar licences, or in the "
        "public domain.\n"
    )
for source in sorted(by_source):
    print(f"## {source}\n")
    for row in sorted(by_source[source], key=lambda row: row["original"]):
        credit = f"; {row['credit']}" if row["credit"] else ""
        name = f"`{Path(row['file']).stem}`: " if names else ""
        size = f", {row['width']}x{row['height']}" if names else ""
        print(f"- {name}{row['original']}{size}: {row['licence']}{credit}")
    print()
