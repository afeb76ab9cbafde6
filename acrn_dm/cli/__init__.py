"""The command line: argv and TOML in, a machine built, checked and run, an exit code out."""

from acrn_dm.cli.app import main

__all__ = ["main"]
