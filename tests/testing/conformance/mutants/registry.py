"""The wrong devices, each with the ids of the rows that it breaks, any one of which is the right answer."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import attrs

T = TypeVar("T", bound=type)


@attrs.frozen(kw_only=True)
class WrongDevice:
    """A device with one fault. *how* makes a machine's device of *device*, a class; see ``builds``."""

    device: type
    rows: tuple[str, ...]
    how: str
    options: str = ""

    @property
    def name(self) -> str:
        """The class's."""
        return self.device.__name__

    @property
    def fault(self) -> str:
        """What is wrong, in a line."""
        return (self.device.__doc__ or "").split("\n", maxsplit=1)[0]


_WRONG: list[WrongDevice] = []


def breaks(*rows: str, how: str = "sample", options: str = "") -> Callable[[T], T]:
    """Count the class among the wrong devices."""

    def enter(device: T) -> T:
        _WRONG.append(WrongDevice(device=device, rows=rows, how=how, options=options))
        return device

    return enter


def wrong_devices() -> Iterator[WrongDevice]:
    """All of those whose modules are imported."""
    yield from _WRONG


def forward(self: Any, *args: Any) -> None:
    """A method that does nothing."""
