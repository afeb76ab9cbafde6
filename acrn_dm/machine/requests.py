"""Requests to a machine's power: who makes them, and what each means: the guest, the user's button, the managers."""

import logging
from collections.abc import Callable

import attrs

from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.records import define
from acrn_dm.contract.hypervisor import VmEvent
from acrn_dm.devices.platform import PlatformCallbacks
from acrn_dm.machine.devices import Devices
from acrn_dm.machine.power import Power
from acrn_dm.machine.triple_fault import TripleFaults
from acrn_dm.management import Controls, Standstill, StopReason, power_state

log = logging.getLogger(__name__)


@define(eq=False)
class GuestRequests:
    """The guest's requests: what it writes into the chips that rule its power, and how its vCPUs end. Any thread.

    *fault_powers_off*: the hypervisor writes S5 for a triple fault; *acpi_enabled*: whether the guest has switched ACPI
    on. *on_triple_fault* hears of each.
    """

    power: Power
    faults: TripleFaults = attrs.field(factory=TripleFaults)
    fault_powers_off: bool = False
    acpi_enabled: Callable[[], bool] = lambda: True
    on_triple_fault: Callable[[], object] = lambda: None

    def callbacks(self, quit_: Callable[[], None]) -> PlatformCallbacks:
        """For the chips; *quit_* is for who sits at their serial console."""
        return PlatformCallbacks(
            poweroff=self.power_off, reset=self.reset, suspend=self.suspend, debug_exit=self.debug_exit, quit=quit_
        )

    def power_off(self, sci_kept: bool) -> None:
        """S5 is written into PM1 control, with or without SCI_EN."""
        if self.fault_powers_off and self.faults.in_disguise(self.acpi_enabled(), sci_kept):
            self.vm_event(VmEvent.TRIPLE_FAULT, "")
        else:
            self.power.request(StopReason.POWEROFF)

    def reset(self, full: bool) -> None:
        """A reset register is written. After a reset in place the vCPU that asks must not run on."""
        self.power.request(StopReason.RESET, hold=not full, full=full)

    def suspend(self) -> None:
        """S3 is written into PM1 control."""
        self.power.request(StopReason.SUSPEND, hold=True)

    def debug_exit(self, code: int) -> None:
        """The port for tests is written."""
        self.power.request(StopReason.DEBUG_EXIT, f"code {code:#x}")

    def vm_event(self, event: VmEvent, detail: str) -> None:
        """A vCPU can't go on."""
        if event is VmEvent.TRIPLE_FAULT:
            self.on_triple_fault()
        failure = self.faults.failure(event, detail)
        self.power.request(StopReason.ERROR if failure else StopReason.RESET, failure or "triple fault")


@define(eq=False)
class PowerButton:
    """The power button: the guest decides, and has *patience_s* seconds to. Who presses again forces it off."""

    power: Power
    loop: IoLoop
    patience_s: float
    tell_guest: Callable[[], object] = lambda: None
    wanted: bool = attrs.field(default=False, init=False)  # somebody has reached for it

    def press_soon(self) -> None:
        """Press it on the main loop. Main thread or its signals."""
        self.wanted = True
        self.loop.call_soon(self.press)

    def press_once(self) -> None:
        """Press it, unless the guest was told before. Main loop."""
        if not self.power.asked:
            self.press()

    def press(self) -> None:
        """Press it. Main loop."""
        if not self.power.press():
            return
        log.info("power button pressed; the guest has %g s", self.patience_s)
        self.tell_guest()
        late = "the guest did not power off in time"
        self.loop.call_later(self.patience_s, lambda: self.power.request(StopReason.FORCED, late))


def controls(power: Power, button: PowerButton, standstill: Standstill, devices: Devices) -> Controls:
    """What managers may do to the machine that has these parts."""

    def resume() -> bool:
        woken = power.wake()
        return standstill.resume() or woken

    return Controls(
        state=lambda: power_state(power.reason, paused=power.sleeps or standstill.standing),
        press_power_button=button.press_once,
        power_off=lambda who: power.request(StopReason.POWEROFF, who),
        insert_medium=devices.insert_medium,
        set_limits=devices.set_limits,
        set_link=devices.set_link,
        command_driver=devices.command_driver,
        resume=resume,
    )
