"""Adds the public address of the repository to the metadata of a release.

    RESTORE_REPOSITORY=https://github.com/OWNER/restore-cli python -m hatchling build

With it, the page on a package index has project URLs, and the links and pictures of README.md are
absolute. Without it, as in a checkout, there are no URLs and README.md is unchanged.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s]+)\)")
PICTURES = (".png", ".jpg", ".svg")


class RepositoryHook(MetadataHookInterface):
    """Sets `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Complete the metadata of pyproject.toml."""
        text = (Path(self.root) / "README.md").read_text("utf-8")
        if address := os.environ.get("RESTORE_REPOSITORY", "").rstrip("/"):
            tag = f"v{metadata['version']}"

            def absolute(link: re.Match[str]) -> str:
                kind = "raw" if link[1].endswith(PICTURES) else "blob"
                return f"]({address}/{kind}/{tag}/{link[1]})"

            text = RELATIVE_LINK.sub(absolute, text)
            metadata["urls"] = {
                "Repository": address,
                "Issues": f"{address}/issues",
                "Changelog": f"{address}/blob/{tag}/CHANGELOG.md",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
