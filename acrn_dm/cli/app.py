"""``main``: the program's outermost part, which says how it ended. What it does in between is ``cli.session``.

Nothing is imported here that ``--version`` does without.
"""

import os
import sys
from collections.abc import Callable, Sequence

from acrn_dm.base.errors import AcrnDmError, ConfigError
from acrn_dm.base.process import privileges
from acrn_dm.base.process.collector import Collector
from acrn_dm.cli.output import complain, show
from acrn_dm.cli.version import version_line

EXIT_OFF = 0
EXIT_FAILURE = 1
EXIT_INTERNAL = 2
EXIT_USAGE = 64  # sysexits.h
EXIT_CONFIG = 78

VERSION = (["--version"], ["-v"])  # asked for in other ways it is found among the options

TYPE_CHECKING = False  # as typing's, which would have to be imported
if TYPE_CHECKING:
    from acrn_dm.cli.session import Build, MakeManager


def main(
    argv: Sequence[str] | None = None,
    *,
    make_manager: "MakeManager | None" = None,
    build: "Build | None" = None,
) -> int:
    """Run the command line *argv* (without the program's name; default ``sys.argv[1:]``) and return the exit code.

    *make_manager* and *build* are for embedding: where plugins come from and what makes the machine, if not
    ``contract.plugins.make_plugin_manager`` and ``machine.build.build``. Without *argv* its process ends with it, so
    that signals which ask for that are not given back. Raises nothing.
    """
    privileges.no_new_privileges()
    args = list(sys.argv[1:] if argv is None else argv)
    _fill_standard_files()
    collector = Collector()
    try:
        return _told(lambda: _main(args, make_manager, build, collector, last=argv is None))
    finally:
        collector.resume()


def _main(
    args: list[str],
    make_manager: "MakeManager | None",
    build: "Build | None",
    collector: Collector,
    *,
    last: bool,
) -> int:
    if args in VERSION:
        show(version_line())
        return EXIT_OFF
    from acrn_dm.cli.session import run  # noqa: PLC0415

    settle = collector.settle if last else collector.resume
    whole = run(args, make_manager=make_manager, build=build, settle=settle, last=last)
    return EXIT_OFF if whole else EXIT_CONFIG


def _told(run: Callable[[], int]) -> int:
    """The exit code of *run*; what it raises is said on stderr."""
    try:
        return run()
    except AcrnDmError as e:
        if not isinstance(e, ConfigError):
            _traceback_if_asked()
        complain(str(e))
        if isinstance(e, ConfigError):
            return EXIT_USAGE if e.usage else EXIT_CONFIG
        return EXIT_FAILURE
    except KeyboardInterrupt:
        complain("interrupted")
        return EXIT_FAILURE
    except Exception as e:
        hint = "" if _traceback_if_asked() else "; set ACRN_DM_TRACEBACK=1 to see where"
        complain(f"internal error: {type(e).__name__}: {e}{hint}")
        return EXIT_INTERNAL


def _fill_standard_files() -> None:
    """Put /dev/null where our caller closed stdin, stdout or stderr: a disk image might be opened under the number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is fd


def _traceback_if_asked() -> bool:
    """Print the current exception's traceback when the environment asks for it."""
    asked = os.environ.get("ACRN_DM_TRACEBACK") == "1"
    if asked:
        import traceback  # noqa: PLC0415

        traceback.print_exc()
    return asked
