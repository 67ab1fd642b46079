"""Sphinx configuration; `make docs` builds the pages into docs/_build/html."""

import re
from importlib.metadata import version as installed_version

project = "ppl_memprior"
author = "The ppl_memprior authors"
project_copyright = f"2026, {author}"
release = installed_version("ppl_memprior")
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

# The docstrings are read by importing the package, for which PyTorch need not be installed.
autodoc_mock_imports = ["deepwave", "torch"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
default_role = "code"
napoleon_use_ivar = True
# Words such as `shape` in the types of arguments are no references.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"ppl_memprior {release}"


def escape_arithmetic(app, what, name, obj, options, lines):
    """In docstrings a star or a bar is arithmetic, or part of a shape, never markup."""
    block = None  # the indentation of the line whose `::` opened the block that we are in
    for i, line in enumerate(lines):
        indentation = len(line) - len(line.lstrip())
        if block is not None and line.strip() and indentation <= block:
            block = None
        if block is None:
            lines[i] = re.sub(r"(`+[^`]*`+)|[*|]", lambda m: m[1] or "\\" + m[0], line)
            if line.rstrip().endswith("::"):
                block = indentation


def setup(app):
    # Before Napoleon (500), which writes markup of its own.
    app.connect("autodoc-process-docstring", escape_arithmetic, priority=400)
