"""``python -m acrn_dm.export.helper NAME SOCKET REPORT``: the process of one device of a machine (``process=on``).

Started by ``backends.helper.child``, which says what is where; its order comes by standard input. It serves that one
connection, and ends with it. Nobody types this command.

What has to be opened is opened before the sandbox is put on and another user taken; what comes by the connection is
read in it.
"""

import os
import sys
from collections.abc import Sequence

from acrn_dm.backends.wire import order
from acrn_dm.backends.wire.order import READY, Order
from acrn_dm.base.errors import AcrnDmError, ConfigError
from acrn_dm.base.log_text import escaped
from acrn_dm.base.process import privileges
from acrn_dm.base.process.stderr import say
from acrn_dm.base.sandbox import OFF, namespaces
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.export.confined import confine_devices
from acrn_dm.export.making import Made, make_resolved
from acrn_dm.export.program import EXIT_CONFIG, EXIT_FAILURE
from acrn_dm.export.sockets import Place
from acrn_dm.export.vhost_user.serving import log_to_stderr, serve

PROGRAM = "acrn-dm"  # whose lines these are to who reads them


def main(argv: Sequence[str]) -> int:
    """Serve the device that the order at standard input names; returns the exit code. Raises nothing of ours."""
    _, connection, report = argv
    privileges.no_new_privileges()
    told = order.decode(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    log_to_stderr(PROGRAM, verbose=False)
    reporter = Reporter(int(report))
    try:
        if told.sandbox != OFF:
            namespaces.prepare()
        made = _made(told)
        place = Place(fd=int(connection))

        def opened() -> None:
            confine_devices(told.sandbox, [made.device], listens=False, user=told.user)
            reporter.report(READY)

        serve([made], [place], dumped=False, last=True, opened=opened)
    except AcrnDmError as e:
        reporter.failed(str(e), told.context.name)
        return EXIT_CONFIG if isinstance(e, ConfigError) else EXIT_FAILURE
    return 0


class Reporter:
    """The pipe into which goes one report."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def report(self, said: bytes) -> None:
        """Say *said* there, and nothing more."""
        fd, self._fd = self._fd, -1
        os.write(fd, said)
        os.close(fd)

    def failed(self, text: str, name: str) -> None:
        """Say why it does not go on: there, as long as somebody reads it there, else on stderr."""
        if self._fd >= 0:
            self.report(text.encode(errors="replace"))
        else:
            say(f"{PROGRAM}: {name}: {escaped(text)}")


def _made(told: Order) -> Made:
    plugins = make_plugin_manager(entry_points=told.plugins is not None, selection=told.plugins)
    plugins.load_devices([told.spec.kind])
    return make_resolved(told.spec, told.context, plugins)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
