"""Credits of training photos as Markdown: python tools/credits.py train_photos.csv > credits.md.

The table needs the columns original, source, licence and credit.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

by_source: dict[str, list[dict[str, str]]] = defaultdict(list)
for row in csv.DictReader(Path(sys.argv[1]).read_text("utf-8").splitlines()):
    by_source[row["source"]].append(row)

print("# Credits of the training photos\n")
total = sum(map(len, by_source.values()))
print(f"Original file, licence and credit of each of the {total} photographs, by source.")
gpl = [row["licence"] for rows in by_source.values() for row in rows if "GPL" in row["licence"]]
choice = sum("CC" in licence for licence in gpl)
print(
    f"{len(gpl) - choice} are under the GPL or LGPL, {choice} under the GPL or a Creative Commons"
)
print(
    "licence; the others are under Creative Commons or similar licences, or in the public domain.\n"
)
for source in sorted(by_source):
    print(f"## {source}\n")
    for row in sorted(by_source[source], key=lambda row: row["original"]):
        credit = f"; {row['credit']}" if row["credit"] else ""
        print(f"- {row['original']}: {row['licence']}{credit}")
    print()
