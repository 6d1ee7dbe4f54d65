"""How the documentation is built: `make docs`."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import torch_geometric_diff  # noqa: E402

project = "torch-geometric-diff"
author = "The torch-geometric-diff authors"
copyright = f"2026, {author}"
version = release = torch_geometric_diff.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "extensions.inventories",
    "extensions.mathml",
    "extensions.api",
    "extensions.layers",
    "extensions.gallery",
    "extensions.rows",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
strip_signature_backslash = True  # napoleon writes `classes_` so that it keeps its underscore
napoleon_custom_sections = ["Shapes"]

html_theme = "furo"
templates_path = ["_templates"]
# the versions that stand beside this one, written by .github/build_docs.sh
html_context = {"versions": os.environ.get("DOCS_VERSIONS", "").split()}
_AROUND = ("brand", "search", "scroll-start", "navigation", "scroll-end", "variant-selector")
html_sidebars = {"**": ["versions.html", *(f"sidebar/{name}.html" for name in _AROUND)]}
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
html_math_renderer = "mathml"
html_show_sphinx = False
