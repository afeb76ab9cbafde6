"""The guard around a plugin's code: whatever it raises becomes one line that names the plugin.

KeyboardInterrupt is nobody's fault: somebody pressed Ctrl-C while the plugin's code ran. Everything else is the
plugin's, SystemExit and GeneratorExit too: a module may not end the program that imports it.
"""

import contextlib
import os
import traceback
from collections.abc import Iterator

from acrn_dm.base.errors import AcrnDmError, PluginError


@contextlib.contextmanager
def blame(provenance: str) -> Iterator[None]:
    """Around a plugin's code: what it raises by mistake becomes a PluginError that names *provenance*."""
    try:
        yield
    except AcrnDmError:
        raise
    except (Exception, SystemExit) as e:
        raise PluginError(told(e), provenance=provenance) from e


def faulty(error: BaseException, provenance: str, hook: str | None = None) -> PluginError:
    """Turn *error*, raised by a plugin's code, into a PluginError; a KeyboardInterrupt is raised on.

    With ``ACRN_DM_TRACEBACK=1`` the traceback goes to stderr: the plugin's author has no other way to it.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    if os.environ.get("ACRN_DM_TRACEBACK") == "1":
        traceback.print_exception(error)
    if isinstance(error, PluginError):
        return error
    made = PluginError(told(error), provenance=provenance, hook=hook)
    made.__cause__ = error
    return made


def told(error: BaseException) -> str:
    """*error* in words, on one line, also where its own text can't be had."""
    name = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "its text can't be shown"
    if isinstance(error, SystemExit):
        return f"it would end the program: sys.exit({text if text != 'None' else ''})"
    return f"{name}: {text}" if text else name
