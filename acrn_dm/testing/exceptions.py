"""Exceptions that a machine logged instead of raising: in production a device's own trouble, in a test news."""

import logging
from types import TracebackType
from typing import Self


class LoggedExceptions(logging.Handler):
    """A context in which exceptions that are logged (``log.exception``) are kept. At the end ``check`` raises
    AssertionError for those that the test has not named with ``expect``.
    """

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.found: list[tuple[str, BaseException]] = []
        self._expected: tuple[type[BaseException], ...] = ()

    def expect(self, *errors: type[BaseException]) -> None:
        """The test makes a device raise these."""
        self._expected += errors

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception of a record that has one (``logging.Handler``)."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            self.found.append((f"{record.name}: {record.getMessage()}", error))

    def check(self) -> None:
        """Raise AssertionError for exceptions that nobody asked for; the first one is its cause."""
        unasked = [(text, error) for text, error in self.found if not isinstance(error, self._expected)]
        if unasked:
            lines = [f"{text}: {type(error).__name__}: {error}" for text, error in unasked]
            raise AssertionError("logged, and nobody asked for it:\n" + "\n".join(lines)) from unasked[0][1]

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        logging.getLogger().removeHandler(self)
