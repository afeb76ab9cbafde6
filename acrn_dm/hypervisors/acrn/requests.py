"""The thread that answers a guest's I/O requests: one for all vCPUs, as ACRN's kernel module has one client of user
space.

A request is a slot of the shared page in state PROCESSING. It is read, answered, and finished by exactly one
NOTIFY_REQUEST_FINISH, on which the kernel changes the state and the hypervisor lets the vCPU go on. ATTACH returns when
a request waits, and also for no reason; as long as one is unanswered it returns at once. So a thread that must not
answer (the machine is paused, or about to be reset) waits at a gate of its own instead.
"""

import errno
import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping

from acrn_dm.base.errors import HostError
from acrn_dm.base.records import define
from acrn_dm.contract.hypervisor import Dispatch, VmEvent
from acrn_dm.hypervisors.acrn.module import _hsm
from acrn_dm.hypervisors.acrn.module._request_page import RequestPage
from acrn_dm.hypervisors.acrn.module.abi import Port
from acrn_dm.hypervisors.acrn.module.errors import failed

log = logging.getLogger(__name__)

FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP}
PORTS = 1 << 16
LATE_ATTACH = 0.2  # seconds given to a thread that has passed the gate, when its client could not be destroyed
SIZES: Mapping[int, tuple[int, ...]] = {
    _hsm.PIO: (1, 2, 4),
    _hsm.PCI_CONFIG: (1, 2, 4),
    _hsm.MMIO: (1, 2, 4, 8),
    _hsm.WRITE_PROTECTED: (1, 2, 4, 8),
}

Event = tuple[VmEvent, str]


@define(eq=False)
class RequestStats:
    """The cost of the requests so far; written by the request thread alone."""

    served: int = 0
    busy_ns: int = 0  # from ATTACH's return to NOTIFY's, summed
    wakeups: int = 0  # returns of ATTACH

    def describe(self) -> str:
        """One line for the log."""
        mean = self.busy_ns / self.served / 1000 if self.served else 0.0
        return f"{self.served} I/O requests in {self.wakeups} wake-ups, {self.busy_ns / 1e9:.3f} s, {mean:.1f} us each"


class RequestThread:
    """The thread that serves one virtual machine's requests. ``start``, ``resume``, ``pause`` and ``end`` are control
    calls.
    """

    def __init__(
        self, port: Port, page: RequestPage, vmid: int, vcpus: int, take_events: Callable[[], list[Event]]
    ) -> None:
        self.stats = RequestStats()
        self.withheld = False  # a request was answered but not finished, as its vCPU must not run on
        self._port = port
        self._page = page
        self._vmid = vmid
        self._vcpus = vcpus
        self._take_events = take_events
        self._client: int | None = None
        self._owner = 0
        self._thread: threading.Thread | None = None
        self._dispatch: Dispatch
        self._finish: list[bytearray] = []
        self._gate = threading.Condition()
        self._serving = False
        self._inside = False  # in ``dispatch``
        self._ended = False

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() is self._thread

    def start(self, dispatch: Dispatch) -> None:
        """Create the client and the thread, which serves from ``resume`` on. Raises HostError."""
        self._dispatch = dispatch
        if self._thread is not None:
            return
        self._client = self._port.call("CREATE_IOREQ_CLIENT")
        self._owner = self._port.abi.owner(self._client)
        self._finish = [self._port.abi.notify(self._vmid, self._client, i) for i in range(self._vcpus)]
        self._thread = threading.Thread(target=self._run, name="ioreq", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as e:
            self._thread = None
            raise HostError(f"starting the I/O request thread: {e}", hint="raise the limit of processes") from e

    def resume(self) -> None:
        """Serve requests."""
        with self._gate:
            self._serving = True
            self.withheld = False
            self._gate.notify_all()

    def pause(self) -> None:
        """Serve no more; when this returns none is in ``dispatch``."""
        with self._gate:
            self._serving = False
            self._gate.wait_for(lambda: not self._inside)

    def end(self) -> None:
        """Destroy the client and wait for the thread. Raises HostError when the kernel refuses; idempotent."""
        with self._gate:
            self._serving, self._ended = False, True
            self._gate.notify_all()
        client, self._client = self._client, None
        if client is None:
            return
        result = self._port.attempt("DESTROY_IOREQ_CLIENT", client)
        thread, self._thread = self._thread, None
        if result < 0:
            if thread is not None:
                thread.join(LATE_ATTACH)  # it may have passed the gate, and is not to attach to a VM that is gone
            raise failed("DESTROY_IOREQ_CLIENT", -result)  # a thread that is still in ATTACH ends with the descriptor
        if thread is not None:
            thread.join()
            log.info("%s", self.stats.describe())

    # On the thread

    def _run(self) -> None:
        """Signals are for the threads that wait for them: a blocked ATTACH has no use for them."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - FAULTS)
        client = self._client or 0
        while self._may_attach():
            result = self._port.attempt("ATTACH_IOREQ_CLIENT", client)
            if result not in (0, -errno.EINTR):
                self._attach_failed(result)
                return
            self._round()

    def _may_attach(self) -> bool:
        with self._gate:
            self._gate.wait_for(lambda: self._serving or self._ended)
            return not self._ended

    def _attach_failed(self, result: int) -> None:
        """The client is gone; that is news unless ``end`` did it. A positive result says so in the old interface."""
        if not self._ended:
            error = failed("ATTACH_IOREQ_CLIENT", -result if result < 0 else errno.ENODEV)
            self._report(VmEvent.INTERNAL_ERROR, str(error))

    def _round(self) -> None:
        began = time.perf_counter_ns()
        self.stats.wakeups += 1
        for event, detail in self._take_events():
            self._report(event, detail)
        for vcpu in self._page.pending(self._vcpus, self._owner):
            if not self._serve(vcpu):
                break
        self.stats.busy_ns += time.perf_counter_ns() - began

    def _serve(self, vcpu: int) -> bool:
        """Answer one request and finish it; whether to go on."""
        with self._gate:
            if not self._serving:
                return False  # it stays in its slot
            self._inside = True
        finished = False
        try:
            self._answer(vcpu)
            if self._dispatch.vcpu_must_wait():
                self.withheld = True
            else:
                self._port.call("NOTIFY_REQUEST_FINISH", self._finish[vcpu], may_sleep=False)
                finished = True
                self.stats.served += 1
        except HostError as e:
            self._report(VmEvent.INTERNAL_ERROR, str(e))
        except Exception as e:
            log.exception("an access of the guest failed")
            self._report(VmEvent.INTERNAL_ERROR, f"an access of the guest failed: {e!r}")
        with self._gate:
            self._inside = False
            self._serving = self._serving and finished
            self._gate.notify_all()
        return finished

    def _answer(self, vcpu: int) -> None:
        kind, write, address, size, value = self._page.request(vcpu)
        if size not in SIZES.get(kind, ()) or (kind == _hsm.PIO and address >= PORTS):
            if not write:  # the hypervisor sends nothing like this
                self._page.answer(vcpu, (1 << 64) - 1)
        elif write:
            self._write(kind, address, size, value & ((1 << 8 * size) - 1))
        else:
            self._page.answer(vcpu, self._read(kind, address, size) & ((1 << 8 * size) - 1))

    def _read(self, kind: int, address: int, size: int) -> int:
        if kind == _hsm.PIO:
            return self._dispatch.pio_read(address, size)
        if kind == _hsm.PCI_CONFIG:
            return self._dispatch.pci_config_read(address >> 12, address & 0xFFF, size)
        return self._dispatch.mmio_read(address, size)

    def _write(self, kind: int, address: int, size: int, value: int) -> None:
        if kind == _hsm.PIO:
            self._dispatch.pio_write(address, size, value)
        elif kind == _hsm.PCI_CONFIG:
            self._dispatch.pci_config_write(address >> 12, address & 0xFFF, size, value)
        else:
            self._dispatch.mmio_write(address, size, value)

    def _report(self, event: VmEvent, detail: str) -> None:
        try:
            self._dispatch.vm_event(event, detail)
        except Exception:
            log.exception("nobody took the event %s: %s", event, detail)
