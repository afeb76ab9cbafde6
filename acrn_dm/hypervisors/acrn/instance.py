"""A virtual machine as the hypervisor has it, from CREATE_VM to DESTROY_VM, and all that lives as long."""

import logging
from collections.abc import Callable, Iterable

import attrs

from acrn_dm.base.errors import HostError
from acrn_dm.base.records import define, frozen
from acrn_dm.contract.types import HypervisorOptions
from acrn_dm.hypervisors.acrn.cpus import Placement
from acrn_dm.hypervisors.acrn.eventfds import Bindings
from acrn_dm.hypervisors.acrn.extras import Extras
from acrn_dm.hypervisors.acrn.module import _hsm
from acrn_dm.hypervisors.acrn.module._request_page import RequestPage
from acrn_dm.hypervisors.acrn.module.abi import Abi, Device, Port
from acrn_dm.hypervisors.acrn.requests import RequestThread

log = logging.getLogger(__name__)

CREATE_ATTEMPTS = 10  # the hypervisor may still be taking down a VM of the same name
CREATE_INTERVAL_S = 0.5


def run_all(steps: Iterable[Callable[[], object]]) -> None:
    """Take every step, going on after a HostError; raise the first one at the end."""
    errors = []
    for step in steps:
        try:
            step()
        except HostError as e:
            errors.append(e)
    if errors:
        raise errors[0]


@frozen(kw_only=True)
class Wanted:
    """The request to the hypervisor and the way to it: the same at each power-on."""

    abi: Abi
    options: HypervisorOptions
    placement: Placement
    open_device: Callable[[str], Device] = attrs.field(repr=False)
    sleep: Callable[[float], None] = attrs.field(repr=False)


@define(eq=False)
class Instance:
    """The device file, the pages shared with it, the eventfds bound and the thread that serves I/O requests.

    Not locked: the owner is. The hypervisor destroys and resets a paused one only, and lets none go on.
    """

    port: Port
    vmid: int
    vcpus: int
    bindings: Bindings
    requests: RequestThread
    _page: RequestPage = attrs.field(repr=False)
    _extras: Extras = attrs.field(repr=False)
    _paused: bool = attrs.field(default=False, init=False)  # the hypervisor's state
    _cleared: bool = attrs.field(default=True, init=False)  # no request is left from before the pause

    @classmethod
    def create(cls, wanted: Wanted) -> "Instance":
        """Create one without memory, several attempts. Raises HostError; then nothing is left."""
        page = RequestPage()
        port = Port.open(wanted.abi, wanted.open_device)
        extras = Extras(port)
        try:
            vmid, vcpus = _create(wanted, port, page)
        except BaseException:
            _give_back(port, extras, page)
            raise
        try:
            _check_vcpus(wanted, vcpus)
            extras.set_up()
            bindings = Bindings(port, asyncio=extras.asyncio)
            return cls(
                port, vmid, vcpus, bindings, RequestThread(port, page, vmid, vcpus, extras.take_events), page, extras
            )
        except BaseException:
            _abandon(port, extras, page)
            raise

    def abandon(self) -> None:
        """Take it down whatever the hypervisor says; it has not been started."""
        _abandon(self.port, self._extras, self._page)

    def destroy(self) -> None:
        """Take it down and close the device; idempotent. Raises HostError, when all is done."""
        if not self.port.is_open:
            return
        try:
            run_all([self.pause, self.requests.end, lambda: self.port.call("DESTROY_VM")])
        finally:
            _give_back(self.port, self._extras, self._page)

    def start(self) -> None:
        """Let the vCPUs of one just created or reset run. Raises HostError."""
        self.port.call("START_VM")
        self._paused = False

    def pause(self) -> None:
        """Stop all vCPUs. Raises HostError."""
        if not self._paused:
            self.port.call("PAUSE_VM")
            self._paused = True
            self._cleared = False

    def clear_requests(self) -> None:
        """Drop what was asked before the pause. Raises HostError."""
        if not self._cleared:
            self.port.call("CLEAR_VM_IOREQ")
            self._cleared = True

    def reset(self) -> None:
        """Put one that is paused back to what it was when created. Raises HostError."""
        self.port.call("RESET_VM")
        self._paused = False


def _create(wanted: Wanted, port: Port, page: RequestPage) -> tuple[int, int]:
    def once() -> tuple[int, int]:
        return wanted.abi.create(port, wanted.options, page.address, wanted.placement.affinity)

    for _ in range(CREATE_ATTEMPTS - 1):
        try:
            return once()
        except HostError as e:
            if e.err is None:  # no call has failed: the answer will not be another one
                raise
            log.debug("%s; trying again", e)
            wanted.sleep(CREATE_INTERVAL_S)
    return once()


def _check_vcpus(wanted: Wanted, vcpus: int) -> None:
    asked = len(wanted.placement.apic_ids) or wanted.options.vcpus
    if vcpus != asked or vcpus > _hsm.MAX_VCPUS:
        raise HostError(
            f"the hypervisor made {vcpus} vCPUs instead of {asked}",
            hint="see the CPU affinity of this VM in the hypervisor's scenario",
        )


def _abandon(port: Port, extras: Extras, page: RequestPage) -> None:
    # Closing the device alone would leave a VM that is not paused to the hypervisor for ever.
    port.attempt("PAUSE_VM")
    port.attempt("DESTROY_VM")
    _give_back(port, extras, page)


def _give_back(port: Port, extras: Extras, page: RequestPage) -> None:
    """Close the device, which destroys what is left; then nobody uses the shared pages."""
    port.close()
    extras.close()
    page.close()
