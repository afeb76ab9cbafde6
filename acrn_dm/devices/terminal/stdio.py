"""This process's standard input and output: one device has them, as there is one terminal."""

from collections.abc import Callable

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.devices.terminal.escape import EscapeFilter
from acrn_dm.devices.terminal.files import share_input, share_output
from acrn_dm.devices.terminal.line import Line
from acrn_dm.devices.terminal.size import Size

_owner: str | None = None


class Terminal:
    """Standard input and output, taken by one device; raw while it has them, if they are a terminal.

    ``input`` and ``output`` are non-blocking files of our own.
    """

    def __init__(self, owner: str, *, stdin: int = 0, stdout: int = 1) -> None:
        """Take it for *owner*. Raises ConfigError when another device has it, HostError when it is closed."""
        global _owner
        if _owner is not None:
            raise ConfigError(f"standard input and output are already used by {_owner}", option=owner, value="stdio")
        try:
            source = share_input(stdin)
            try:
                sink = share_output(stdout)
            except OSError:
                source.close()
                raise
        except OSError as e:
            raise HostError.from_os(f"{owner}: opening stdio", e) from e
        self._line: Line | None = Line(owner, source, sink)
        self.input, self.output = self._line.input, self._line.output
        _owner = owner

    @property
    def size(self) -> Size | None:
        """(columns, rows), None without a terminal."""
        return None if self._line is None else self._line.size

    def start(self, loop: IoLoop, *, on_quit: Callable[[], None], on_resize: Callable[[], None] | None = None) -> None:
        """Let input through, but Ctrl-a x, which calls *on_quit*. Both are called on the loop."""
        if self._line is not None:
            self._line.start(loop, escape=EscapeFilter(on_quit), resized=on_resize)

    def close(self) -> None:
        """Give it back as it was. Idempotent."""
        global _owner
        line, self._line = self._line, None
        if line is not None:
            line.close()
            _owner = None
