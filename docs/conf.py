"""The site: `make docs` builds it into docs/_build."""

project = "restore"
copyright = "the authors of restore; text under Apache-2.0, pictures as their captions say"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# The manual page, from the same source as the reference: `man docs/_build/man/restore.1`.
man_pages = [
    ("reference/commands", "restore", "deblur and enlarge pictures", "the authors of restore", 1)
]
html_theme = "furo"
html_title = "restore"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
napoleon_use_rtype = False
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository beside docs/
smartquotes = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
