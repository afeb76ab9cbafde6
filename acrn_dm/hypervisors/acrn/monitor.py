"""The interrupt storm monitor (``--intr_monitor``): a device passed through that interrupts without end slows the
Service VM down, so its interrupts are delayed for a while.

The hypervisor fills a page (392 bytes of it): command u32, number of words u32, then pairs of u64: interrupt and count
since it was set up. The page's address is the argument, by value.
"""

import logging
import struct

from acrn_dm.base.errors import HostError
from acrn_dm.contract.interrupt_monitor import CallLater, InterruptMonitor
from acrn_dm.hypervisors.acrn.module.abi import Port
from acrn_dm.hypervisors.acrn.shared import SharedPage

log = logging.getLogger(__name__)

GET_DATA, DELAY = 0, 1
WORDS = 48  # two for each device
HEADER = struct.Struct("<II")
COUNTS = struct.Struct(f"<{WORDS}Q")
SETTLE_S = 5.0  # after a storm, before counting begins anew


class StormMonitor:
    """The monitor: looks at the counts every period, on the loop of *call_later*, until ``close``."""

    def __init__(self, port: Port, settings: InterruptMonitor, call_later: CallLater) -> None:
        self._port = port
        self._settings = settings
        self._call_later = call_later
        self._page = SharedPage()
        self._counts: dict[int, int] | None = None
        self._timer = call_later(settings.period_s, self._look)

    def close(self) -> None:
        """Look no more. Idempotent; while the device is still open, as the kernel has the page pinned."""
        self._timer.cancel()

    def _look(self) -> None:
        """Compare with the counts of a period ago; an interrupt that was not there then is no storm yet."""
        try:
            before, now = self._counts, self._read()
            self._counts = now
            storms = [] if before is None else [irq for irq, count in now.items() if self._is_storm(before, irq, count)]
            if storms:
                log.warning("interrupt storm on host interrupt %s; interrupts of passed-through devices are delayed by "
                            "%d ms", storms[0], self._settings.delay_ms)  # fmt: skip
                self._delay(self._settings.delay_ms)
                self._timer = self._call_later(self._settings.duration_ms / 1000, self._calm)
            else:
                self._timer = self._call_later(self._settings.period_s, self._look)
        except HostError as e:
            log.warning("the interrupt storm monitor ends: %s", e)

    def _calm(self) -> None:
        try:
            self._delay(0)
            self._counts = None
            self._timer = self._call_later(SETTLE_S, self._look)
        except HostError as e:
            log.warning("the interrupt storm monitor ends: %s", e)

    def _is_storm(self, before: dict[int, int], irq: int, count: int) -> bool:
        return irq in before and count - before[irq] > self._settings.threshold * self._settings.period_s

    def _read(self) -> dict[int, int]:
        self._ask(GET_DATA, (0,) * WORDS)
        _, words = HEADER.unpack_from(self._page.memory)
        values = COUNTS.unpack_from(self._page.memory, HEADER.size)[: min(words, WORDS) // 2 * 2]
        return dict(zip(values[::2], values[1::2], strict=True))

    def _delay(self, milliseconds: int) -> None:
        self._ask(DELAY, (milliseconds, *(0,) * (WORDS - 1)))

    def _ask(self, command: int, words: tuple[int, ...]) -> None:
        HEADER.pack_into(self._page.memory, 0, command, WORDS)
        COUNTS.pack_into(self._page.memory, HEADER.size, *words)
        self._port.call("VM_INTR_MONITOR", self._page.address)
