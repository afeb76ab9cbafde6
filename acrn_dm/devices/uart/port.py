"""A serial port of the ISA bus: COM1 to COM5, at the ports and interrupts of the original."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import attrs

from acrn_dm.base.errors import ConfigError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.files.claims import Claim
from acrn_dm.base.records import define
from acrn_dm.contract.config import UartSpec
from acrn_dm.devices.uart.backends import Backend, check_backend, claims, open_backend
from acrn_dm.devices.uart.uart16550 import Uart16550

PORTS = 8  # registers, one byte each
STANDARD = {1: (0x3F8, 4), 2: (0x2F8, 3), 3: (0x3E8, 6), 4: (0x2E8, 7), 5: (0x9000, 10)}  # number: (first port, IRQ)


@define(eq=False)
class UartPort:
    """One port; its ``uart`` answers the registers."""

    ports: ClassVar[int] = PORTS

    name: str
    io_base: int = attrs.field(repr=hex)
    irq: int
    backend_text: str
    uart: Uart16550 = attrs.field(repr=False)
    wait: bool = False
    _backend: Backend | None = attrs.field(default=None, init=False, repr=False)

    @property
    def uses_terminal(self) -> bool:
        """Whether this process's standard input and output are behind it."""
        return self.backend_text == "stdio"

    def check(self) -> list[str]:
        """What is missing on this host."""
        problem = check_backend(self.backend_text)
        return [] if problem is None else [f"-l {self.name.lower()}: {problem}"]

    def claims(self) -> Sequence[Claim]:
        """What only one port can have."""
        return claims(self.backend_text)

    def open(self, loop: IoLoop, on_quit: Callable[[], None]) -> None:
        """Open the backend. Raises ConfigError or HostError."""
        self._backend = open_backend(
            self.backend_text, f"-l {self.name.lower()}", self.uart, loop, on_quit, wait=self.wait
        )

    def close(self) -> None:
        """Close the backend. Idempotent."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None


def make_ports(specs: Sequence[UartSpec], line: Callable[[int], Callable[[bool], None]]) -> tuple[UartPort, ...]:
    """Make the ports of *specs*; *line(irq)* gives a source of an interrupt line. Raises ConfigError for clashes."""
    ports: list[UartPort] = []
    for spec in sorted(specs, key=lambda s: s.number):
        base, irq = STANDARD[spec.number]
        if spec.io_base is not None and spec.irq is not None:
            base, irq = spec.io_base, spec.irq
        name = f"COM{spec.number}"
        for other in ports:
            if other.name == name:
                raise ConfigError("the serial port is given twice", option="-l", value=name.lower())
            if abs(other.io_base - base) < PORTS:
                text = f"its registers at {base:#x} overlap those of {other.name.lower()}"
                raise ConfigError(text, option="-l", value=name.lower())
        ports.append(UartPort(name, base, irq, spec.backend, Uart16550(line(irq)), spec.wait))
    return tuple(ports)
