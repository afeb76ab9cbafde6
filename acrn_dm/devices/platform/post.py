"""The POST code ports: firmware writes how far it got; kernels write to 0x80 to pass a microsecond."""


class PostPorts:
    """The ports: what is written is forgotten, as nothing shows the codes."""

    def read(self, offset: int, size: int) -> int:
        """Nothing drives the bus."""
        return (1 << (8 * size)) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """A microsecond has passed."""
