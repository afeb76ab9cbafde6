"""A simulated bus: devices are Python objects that see starts, bytes and stops."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import cast

from acrn_dm import Claim, CommandLines, ConfigError, IoLoop
from acrn_dm_i2c.config import DeviceText, I2cConfig
from acrn_dm_i2c.eeprom import Eeprom
from acrn_dm_i2c.lm75 import Lm75
from acrn_dm_i2c.message import BusError, Message
from acrn_dm_i2c.slave import Slave

KINDS: dict[str, Callable[[str], Slave]] = {"24c02": Eeprom, "lm75": Lm75}


def make(device: DeviceText) -> Slave:
    """The object behind ``device=``. Raises ConfigError."""
    kind = KINDS.get(device.kind) or _imported(device.kind)
    try:
        return kind(device.text)
    except ValueError as e:
        raise ConfigError(str(e), option="device", value=f"{device.kind}@{device.address:#x}") from e


def _imported(name: str) -> Callable[[str], Slave]:
    module, _, attribute = name.rpartition(".")
    known = f"known: {', '.join(KINDS)}, or package.module.Class"
    if not module:
        raise ConfigError(f"no such kind of device; {known}", option="device", value=name)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as e:
        raise ConfigError(f"{e}; {known}", option="device", value=name) from e
    if not (inspect.isclass(found) and issubclass(found, Slave)):
        raise ConfigError("is no subclass of acrn_dm_i2c.Slave", option="device", value=name)
    return cast(Callable[[str], Slave], found)


class Simulated:
    """The bus of ``device``."""

    slow = False

    def __init__(self, name: str, config: I2cConfig) -> None:
        self.config = config
        devices = [DeviceText.parse(written) for written in config.device]
        self.slaves = {device.address: make(device) for device in devices}
        self._lines = CommandLines(name, self._execute)
        self._loop: IoLoop | None = None
        self._begun = False

    @property
    def text(self) -> str:
        """How many devices."""
        return f"simulated bus of {len(self.slaves)}"

    def check(self) -> list[str]:
        """Whether script and control can be used."""
        return self._lines.check(script=self.config.script, control=self.config.control)

    def claims(self) -> Sequence[Claim]:
        """The control."""
        return self._lines.claims(self.config.control)

    def open(self, loop: IoLoop) -> None:
        """Open the devices and listen. Raises ConfigError and HostError."""
        self._loop = loop
        for slave in self.slaves.values():
            slave.open()
        if self.config.control is not None:
            self._lines.open(loop, self.config.control)

    def started(self) -> None:
        """Play the script, once."""
        if not self._begun and self.config.script is not None:
            self._lines.play(cast(IoLoop, self._loop), self.config.script)
        self._begun = True

    def transfer(self, messages: Sequence[Message]) -> list[bytes]:
        """Start, bytes, repeated start ..., stop for every device that was addressed. Raises BusError."""
        addressed: dict[int, Slave] = {}
        results: list[bytes] = []
        try:
            for message in messages:
                slave = self.slaves.get(message.address)
                read = None
                if slave is not None:
                    addressed[message.address] = slave
                    read = _exchange(slave, message)
                if read is None:
                    raise BusError(results)
                results.append(read)
        finally:
            for slave in addressed.values():
                slave.stop()
        return results

    def close(self) -> None:
        """Close the devices."""
        self._lines.close()
        for slave in self.slaves.values():
            slave.close()

    def _execute(self, line: str) -> str:
        address, _, rest = line.partition(" ")
        try:
            slave = self.slaves[int(address, 0)]
        except (ValueError, KeyError):
            known = ", ".join(f"{it:#x}" for it in self.slaves)
            raise ValueError(
                f"{address}: expected the address of a device ({known or 'there are none'}) or wait"
            ) from None
        return slave.command(rest.strip())


def _exchange(slave: Slave, message: Message) -> bytes | None:
    """What one message of a transaction reads; None where it is not acknowledged."""
    if not slave.start(message.data is None):
        return None
    if message.data is None:
        return bytes(slave.read() & 0xFF for _ in range(message.length))
    return b"" if all(map(slave.write, message.data)) else None
