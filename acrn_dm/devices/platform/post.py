"""The POST code ports: firmware writes how far it got; kernels write to 0x80 to pass a microsecond."""


class PostCode:
    """The port and the last code that was written to it."""

    def __init__(self) -> None:
        self.code: int | None = None

    def reset(self) -> None:
        """No code yet."""
        self.code = None

    def read(self, offset: int, size: int) -> int:
        """Nothing drives the bus."""
        return (1 << (8 * size)) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Keep *value*."""
        self.code = value
