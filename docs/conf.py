"""Sphinx's settings for the site that ``make docs`` builds."""

from importlib.metadata import version as installed

project = "acrn_dm"
author = "the acrn_dm authors"
version = release = installed("acrn-dm")
language = "en"
smartquotes = False  # "--option" stays what it is

extensions = ["myst_parser", "sphinx.ext.autodoc", "tools.docs.field_comments"]
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
exclude_patterns = ["README.md"]

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 90

html_theme = "furo"
html_title = f"acrn_dm {release}"
html_copy_source = False
html_show_sourcelink = False
