"""Devices of the packages in ``plugins/`` that are wrong: GPIO (5.18), I2C (5.16), input (5.8), balloon (5.5) and
sockets (5.10).
"""

from typing import Any

from acrn_dm_balloon.device import BalloonDevice
from acrn_dm_gpio.device import GpioDevice
from acrn_dm_i2c.device import I2cDevice
from acrn_dm_input.device import InputDevice
from acrn_dm_vsock import VsockDevice

from acrn_dm import Chain, Queue
from tests.testing.conformance.mutants.registry import breaks

GET_DIRECTION, SET_DIRECTION = 2, 3
ID_NAME, ID_DEVIDS = 1, 3


@breaks("d.gpio.padding", how="gpio")
class PutsRubbishIntoThePadding(GpioDevice):
    """Shows something in its configuration's padding."""

    def read_config(self, offset: int, size: int) -> bytes:
        space = super().read_config(0, self.config_size)
        return (space[:2] + b"\1\1" + space[4:])[offset : offset + size]


@breaks("gpio.cfg.names_size", "gpio.cfg.names0", how="gpio")
class MiscountsItsNames(GpioDevice):
    """Leaves the last name's end out of gpio_names_size."""

    def read_config(self, offset: int, size: int) -> bytes:
        space = super().read_config(0, self.config_size)
        count = int.from_bytes(space[4:], "little") - 1
        return (space[:4] + count.to_bytes(4, "little"))[offset : offset + size]


class _Answers(GpioDevice):
    """Answers in its own way."""

    def answer(self, kind: int, line: int, right: bytes) -> bytes:
        raise NotImplementedError

    def _answer(self, kind: int, line: int, value: int) -> bytes:
        return self.answer(kind, line, super()._answer(kind, line, value))


@breaks("d.gpio.status_err", how="gpio")
class NeverFails(_Answers):
    """Answers messages that it does not know, and lines that are not there, with OK."""

    def answer(self, kind: int, line: int, right: bytes) -> bytes:
        return b"\0" + right[1:]


@breaks("d.gpio.dir_get", how="gpio")
class KnowsNoDirection(_Answers):
    """Says of every line that it has no direction."""

    def answer(self, kind: int, line: int, right: bytes) -> bytes:
        return b"\0\0" if kind == GET_DIRECTION else right


@breaks("gpio.resp.all_fields", how="gpio")
class AnswersWithAStatusOnly(_Answers):
    """Leaves the value out of its answers."""

    def answer(self, kind: int, line: int, right: bytes) -> bytes:
        return right[:1]


@breaks("d.gpio.irq_unmask_first", how="gpio")
class InterruptsUnasked(GpioDevice):
    """Returns every event buffer at once, as an interrupt."""

    def _unmask(self, queue: Queue, chain: Chain) -> None:
        chain.write(b"\1")
        queue.push(chain)


@breaks("i2c.feat.offer", how="i2c")
class OffersNoEmptyRequests(I2cDevice):
    """Does not offer ZERO_LENGTH_REQUEST, because its backend takes it away."""

    def realize(self, resources: Any) -> None:
        super().realize(resources)
        self.transport.data_plane.backend.offer = lambda offered: offered & ~1  # type: ignore[union-attr]


@breaks("i2c.feat.reject", how="i2c")
class AcceptsAnyDriver(I2cDevice):
    """Accepts a driver without ZERO_LENGTH_REQUEST."""

    def realize(self, resources: Any) -> None:
        super().realize(resources)
        core: Any = self.transport.core  # type: ignore[union-attr]
        core._features_ok = lambda: not core.driver_features & ~core.offered


class _Described(InputDevice):
    """Describes itself in its own way."""

    def realize(self, resources: Any) -> None:
        super().realize(resources)
        real = self._space.read

        def read(description: Any, offset: int, size: int) -> bytes:
            return real(_Changed(description, self.change), offset, size)

        self._space = _Space(read, self._space)  # type: ignore[assignment]

    def change(self, select: int, subsel: int, right: bytes) -> bytes:
        raise NotImplementedError


class _Space:
    def __init__(self, read: Any, real: Any) -> None:
        self.read = read
        self.write, self.reset = real.write, real.reset


class _Changed:
    def __init__(self, real: Any, change: Any) -> None:
        self._real, self._change = real, change

    def value(self, select: int, subsel: int) -> bytes:
        changed: bytes = self._change(select, subsel, self._real.value(select, subsel))
        return changed


@breaks("input.cfg.size0", how="input")
class SaysSomethingAboutEverything(_Described):
    """Has a size for selections that it does not know."""

    def change(self, select: int, subsel: int, right: bytes) -> bytes:
        return right or b"?"


@breaks("d.inp.string", how="input")
class EndsItsNameWithNul(_Described):
    """Has a NUL at the end of its name."""

    def change(self, select: int, subsel: int, right: bytes) -> bytes:
        return right + b"\0" if select == ID_NAME and right else right


@breaks("d.inp.devids", how="input")
class HasThreeNumbers(_Described):
    """Shows three of the four numbers of its identity."""

    def change(self, select: int, subsel: int, right: bytes) -> bytes:
        return right[:6] if select == ID_DEVIDS else right


@breaks("d.inp.cfg_select", how="input")
class HearsTheFirstSelection(InputDevice):
    """Shows what was selected first, for ever."""

    chosen = False

    def write_config(self, offset: int, data: bytes) -> None:
        if self._space.select and self._space.subsel == 0 and self.chosen:
            return
        super().write_config(offset, data)
        self.chosen = self.chosen or self._space.select == ID_NAME


@breaks("d.bal.ack", "dm.lost_chain", "dm.lost_some", how="balloon")
class KeepsWhatItWasGiven(BalloonDevice):
    """Takes pages and acknowledges none."""

    def _inflate(self, queue: Queue, chain: Chain) -> None:
        """Nothing."""


@breaks("d.bal.cfg", how="balloon")
class ForgetsWhatItHas(BalloonDevice):
    """Ignores what the driver says about how many pages it gave."""

    def write_config(self, offset: int, data: bytes) -> None:
        """Nothing."""


@breaks("d.bal.pfn", how="balloon")
class CountsInBytes(BalloonDevice):
    """Takes a page number for that of the page behind it."""

    def _inflate(self, queue: Queue, chain: Chain) -> None:
        assert self.pages is not None
        data = chain.read(4096)
        for at in range(0, len(data) - 3, 4):
            gpa = (int.from_bytes(data[at : at + 4], "little") + 1) * 4096
            self.pages.memory.write(gpa, bytes(4096))
        queue.push(chain)


class _Sockets(VsockDevice):
    """A socket device that is served in this process, by nobody: what can be judged is what it says about itself."""

    @property
    def backend_name(self) -> str:
        return "vbs-u"


@breaks("vsock.cid.reserved", how="vsock")
class IsTheHost(_Sockets):
    """Has the host's address."""

    def read_config(self, offset: int, size: int) -> bytes:
        return (2).to_bytes(8, "little")[offset : offset + size]


@breaks("d.vsock.cfg", "vsock.cid.reserved", how="vsock")
class HasAWideAddress(_Sockets):
    """Has an address with something in its upper half."""

    def read_config(self, offset: int, size: int) -> bytes:
        return (1 << 40 | 3).to_bytes(8, "little")[offset : offset + size]


@breaks("vsock.feat.no_implied", how="vsock")
class ImpliesStreams(_Sockets):
    """Does not offer NO_IMPLIED_STREAM."""

    @property
    def features(self) -> int:
        return super().features & ~4
