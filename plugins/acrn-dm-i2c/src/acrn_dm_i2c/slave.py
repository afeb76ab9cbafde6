"""The base of simulated devices: what a device on an I2C bus sees."""


class Slave:
    """A device on the simulated bus. A subclass takes the TEXT of its option in ``__init__`` (ValueError where that
    means nothing) and overrides what it has. All calls come on one thread.
    """

    def __init__(self, text: str) -> None:
        if text:
            raise ValueError(f"{text!r}: this kind of device takes no text")

    def open(self) -> None:
        """The machine becomes real: open files here. Raises HostError."""

    def start(self, read: bool) -> bool:
        """A start, or a repeated one, with the device's address; returns whether it is acknowledged."""
        return True

    def write(self, byte: int) -> bool:
        """A byte from the guest; returns whether it is acknowledged."""
        return False

    def read(self) -> int:
        """The next byte for the guest; a bus that nobody drives is high."""
        return 0xFF

    def stop(self) -> None:
        """The end of a transaction in which it was addressed."""

    def command(self, line: str) -> str:
        """A line from outside; returns the answer. Raises ValueError for one that says nothing."""
        raise ValueError("this device knows no commands")

    def close(self) -> None:
        """Close files. Idempotent."""
