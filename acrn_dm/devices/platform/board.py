"""All platform devices of one machine, put together."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from acrn_dm.base import address_map as layout
from acrn_dm.base.bus import Handler
from acrn_dm.base.events.clock import REAL, Clock
from acrn_dm.base.records import frozen
from acrn_dm.contract.config import UartSpec
from acrn_dm.contract.resources import Resources
from acrn_dm.devices.platform.debugexit import DebugExit
from acrn_dm.devices.platform.i8042 import KeyboardController
from acrn_dm.devices.platform.pit import COUNTERS, Pit
from acrn_dm.devices.platform.pm import PM_TIMER, PowerManagement
from acrn_dm.devices.platform.post import PostPorts
from acrn_dm.devices.platform.ps2_keyboard import Ps2Keyboard
from acrn_dm.devices.platform.reset import ResetControl
from acrn_dm.devices.platform.rtc import Rtc
from acrn_dm.pci.intx import IrqLine

if TYPE_CHECKING:
    from acrn_dm.devices.platform.fw_cfg import FwCfg
    from acrn_dm.devices.uart.port import UartPort

KEYBOARD_IRQ = 1
RTC_IRQ = 8
POST_PORTS = (0x80, 0x84)
DEBUG_EXIT = 0xF4
PIT_PORTS, SPEAKER_PORT = 0x40, 0x61


@frozen(kw_only=True)
class PlatformCallbacks:
    """The requests that the guest, or the user at its serial console, makes to the machine. Called from any thread."""

    poweroff: Callable[[bool], None]
    reset: Callable[[bool], None]  # True: a full reset, as if power had been off
    suspend: Callable[[], None]
    debug_exit: Callable[[int], None]
    quit: Callable[[], None]


def _ports(uarts: Sequence[UartSpec], line: Callable[[int], Callable[[bool], None]]) -> "tuple[UartPort, ...]":
    """The serial ports, whose modules are imported where there is one. Raises ConfigError."""
    from acrn_dm.devices.uart.port import make_ports  # noqa: PLC0415

    return make_ports(uarts, line)


class Platform:
    """The board's devices, made before anything is open; ``realize`` puts the devices on the bus and opens the serial
    ports' backends.
    """

    def __init__(
        self,
        callbacks: PlatformCallbacks,
        *,
        uarts: Sequence[UartSpec] = (),
        debugexit: bool = False,
        pit: bool = False,
        fw_cfg: "FwCfg | None" = None,
        clock: Clock = REAL,
    ) -> None:
        """*pit*: the timer is not the hypervisor's. *fw_cfg*: what firmware asks. *clock*: of all chips here.

        Raises ConfigError for serial ports that clash.
        """
        self.callbacks = callbacks
        self.lines: dict[int, IrqLine] = {}
        self.uarts = _ports(uarts, self._line) if uarts else ()
        ticks = clock.monotonic_ns
        self.pm = PowerManagement(self._line(layout.SCI_IRQ), callbacks.poweroff, callbacks.suspend, ticks)
        self.rtc = Rtc(self._line(RTC_IRQ), clock.time, self.pm.rtc_alarm)
        self.pit = Pit(self._line(layout.PIT_GSI), ticks) if pit else None
        self.fw_cfg = fw_cfg
        self.reset_control = ResetControl(callbacks.reset)
        keyboard = None if fw_cfg is None else Ps2Keyboard()
        self.keyboard = KeyboardController(self._line(KEYBOARD_IRQ), lambda: callbacks.reset(True), keyboard)
        self.debug_exit = DebugExit(callbacks.debug_exit) if debugexit else None

    @property
    def pm_timer_port(self) -> int:
        """Port of the ACPI timer."""
        return PM_TIMER

    def acpi_uarts(self) -> tuple[tuple[str, int, int], ...]:
        """(name, first port, IRQ) of each serial port, for the DSDT."""
        return tuple((port.name, port.io_base, port.irq) for port in self.uarts)

    def check(self) -> list[str]:
        """What is missing on this host, one line each; opens and changes nothing."""
        return [line for port in self.uarts for line in port.check()]

    def realize(self, resources: Resources) -> None:
        """Answer the ports, connect the interrupts, open the backends. Raises ConfigError or HostError."""
        for line in self.lines.values():
            line.connect(resources.interrupts)
        for base, size, handler, name in self._ranges():
            resources.pio.register(base, size, handler, name)
        self.pm.attach(resources.main_loop)
        self.rtc.attach(resources.main_loop)
        if self.pit is not None:
            self.pit.attach(resources.main_loop)
        if self.fw_cfg is not None:
            self.fw_cfg.attach(resources.memory)
        self.rtc.set_memory_size([(r.gpa, r.size) for r in resources.memory.regions])
        for port in self.uarts:
            port.open(resources.main_loop, self.callbacks.quit)

    def press_power_button(self) -> None:
        """Press and release it: the guest's ACPI driver decides. Any thread."""
        self.pm.press_power_button()

    def reset(self) -> None:
        """Power-on state of all devices; the clock goes on, and what a host has to say to a serial port stays open."""
        self.pm.reset()
        self.rtc.reset()
        self.sleep()

    def sleep(self) -> None:
        """Suspend to RAM: all that has no power of its own is as after power-on. Power management and clock go on."""
        for device in (self.reset_control, self.keyboard, self.pit, self.fw_cfg):
            if device is not None:
                device.reset()
        for port in self.uarts:
            port.uart.reset()

    def wake(self) -> None:
        """The machine comes back from its sleep. Any thread."""
        self.pm.wake()

    def close(self) -> None:
        """Give back terminals, sockets and timers. Idempotent."""
        self.pm.close()
        self.rtc.close()
        if self.pit is not None:
            self.pit.close()
        for port in self.uarts:
            port.close()

    def _line(self, irq: int) -> Callable[[bool], None]:
        return self.lines.setdefault(irq, IrqLine(irq)).source()

    def _ranges(self) -> list[tuple[int, int, Handler, str]]:
        ranges: list[tuple[int, int, Handler, str]] = [
            (layout.KEYBOARD_DATA, 1, self.keyboard.data, "keyboard controller data"),
            (layout.KEYBOARD_STATUS, 1, self.keyboard.control, "keyboard controller"),
            (layout.RTC_INDEX, 2, self.rtc, "RTC"),
            (layout.SMI_COMMAND, 1, self.pm.smi_command, "SMI command"),
            (layout.PM1A_EVENT, 6, self.pm, "PM1"),
            (PM_TIMER, 4, self.pm.timer, "PM timer"),
            (layout.RESET_CONTROL, 1, self.reset_control, "reset control"),
        ]
        ranges += [(port, 1, PostPorts(), "POST code") for port in POST_PORTS]
        if self.pit is not None:
            ranges.append((PIT_PORTS, COUNTERS + 1, self.pit, "timer"))
            ranges.append((SPEAKER_PORT, 1, self.pit.speaker, "timer gate"))
        if self.fw_cfg is not None:
            ranges.append((layout.FW_CFG, layout.FW_CFG_PORTS, self.fw_cfg, "firmware configuration"))
        if self.debug_exit is not None:
            ranges.append((DEBUG_EXIT, 4, self.debug_exit, "debug exit"))
        return ranges + [(port.io_base, port.ports, port.uart, port.name) for port in self.uarts]
