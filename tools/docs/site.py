"""The site: Sphinx over the sources; a warning of Sphinx is an error."""

import sys
from pathlib import Path

from sphinx.cmd.build import build_main

from tools.docs.sources import write


def main(target: Path, processes: str = "auto", *options: str) -> int:
    """Write the sources beside *target*, build the site there; 0 when nothing was to be said against them."""
    sources = target.with_name(target.name + "-sources")
    pages = write(sources)
    if not build(sources, target, processes, *options):
        print(f"the site has warnings, which are errors; its sources are in {sources}", file=sys.stderr)
        return 1
    print(f"{len(pages)} pages in {target}: open {target / 'index.html'}")
    return 0


def build(sources: Path, target: Path, processes: str = "auto", *options: str) -> bool:
    """Have Sphinx make the site; whether it had nothing to complain of. It says on stderr what it complains of: in one
    process of a name that is described twice, too.
    """
    settings = ["-q", "-W", "--keep-going", "-j", processes, "-b", "html", *options]
    return build_main([*settings, str(sources), str(target)]) == 0
