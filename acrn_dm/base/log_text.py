"""Text of logs: one line a record, whatever guests, peers and file names put into it."""

import copy
import logging
from types import TracebackType

INDENT = "  "

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def escaped(text: str) -> str:
    """*text* with everything that is not printable as escapes: a terminal obeys control characters, and a line's end
    would let a guest write records of its own.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


class LineFormatter(logging.Formatter):
    """A formatter that escapes the message. Of a traceback, whose lines are wanted, each line is escaped and indented:
    no record begins like that.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it."""
        record = copy.copy(record)
        record.exc_text = None  # another handler's formatter may have left its own there
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei: ExcInfo) -> str:
        """The traceback."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        """Where the record was made, for those that ask for it."""
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(INDENT + escaped(line) for line in text.split("\n"))
