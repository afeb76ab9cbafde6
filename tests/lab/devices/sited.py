"""acrn-dm with one more folder of installed plugins: ``python -m tests.lab.devices.sited FOLDER ARGUMENTS...``.

FOLDER.log gets a line ``NAME PID`` for each process of a device.

acrn-dm is in a sandbox, so that it has a broker, which is a fork of this process; those of devices are forks of the
broker (``tests.lab.forked_broker``).
"""

import importlib
import sys
from collections.abc import Sequence

from acrn_dm.backends.helper import child
from acrn_dm.cli.app import main
from tests.lab.forked_broker import Forked, execute, fork_broker


def noted(module: str, words: Sequence[str], told: bytes, fds: Sequence[int]) -> Forked:
    """The process of a device, which has a line."""
    started = Forked(lambda: execute(module, words, told, fds))
    with open(f"{SITE}.log", "a") as file:
        file.write(f"{words[0]} {started.pid}\n")
    return started


if __name__ == "__main__":
    SITE = sys.argv[1]
    sys.path.append(SITE)
    importlib.import_module(child.PROGRAM)
    child.start_program = noted  # type: ignore[assignment]
    fork_broker()
    sys.exit(main(sys.argv[2:]))
