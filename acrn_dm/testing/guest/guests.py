"""Guests for as long as a test run lasts: where acrn-dm runs for them, and what they share."""

import contextlib
import functools
import itertools
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import cache_from_source
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from acrn_dm.hypervisors.kvm import probe
from acrn_dm.testing.guest import needs, progress
from acrn_dm.testing.guest.consoles import remove_logs
from acrn_dm.testing.guest.errors import HarnessTimeout, HarnessUnavailable
from acrn_dm.testing.guest.guest import Guest, Shell, slots_for
from acrn_dm.testing.guest.host import Host
from acrn_dm.testing.guest.inner import python
from acrn_dm.testing.guest.inner.initramfs import GUEST_MODULES, SHELL, guest_init, guest_initramfs
from acrn_dm.testing.guest.inner.shell import BOOT_LIMIT, GuestShell
from acrn_dm.testing.guest.kernels.debian import Kernel, debian_kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from acrn_dm.testing.guest.places import home
from acrn_dm.testing.guest.process import Place
from acrn_dm.testing.guest.served import newer
from acrn_dm.testing.guest.served.shell import ServedShell

FORGOTTEN_S = 7 * 86400.0
# What acrn-dm and its plugins may ask the environment for, and what Python does.
PASSED_ON = ("ACRN_DM_", "PYTHON")


class Guests:
    """Makes guests; a context, whose end is that of the outer VM, if one was needed.

    acrn-dm runs on this host where /dev/kvm is fit for it, else in an outer VM, which the first guest boots. There,
    too, the same Python runs the same installed packages, in the same folder: a plugin that this process finds is
    found. The folder ``scratch`` and the *shares* are seen by both sides; what is written elsewhere in the outer VM
    stays there. *place* says where acrn-dm is to run instead. *say* is told, a line each, of what lasts; *skip* is
    called where there can be no guest, with the reason.
    """

    def __init__(
        self,
        *,
        shares: Sequence[Path] = (),
        place: Place | None = None,
        say: progress.Say | None = None,
        skip: Callable[[str], object] | None = None,
    ) -> None:
        self._shares = shares
        self._place = place
        self._say = say
        self._skip = skip
        self._absent: dict[bool, str | None] = {}  # by whether devices are served
        self._numbers = itertools.count(1)
        self._resources = contextlib.ExitStack()
        self._scratch: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the outer VM, and remove ``scratch``."""
        self._resources.close()

    @property
    def scratch(self) -> Path:
        """A folder at the same path for acrn-dm and for the test, for sockets and disks; removed at the end."""
        if self._scratch is None:
            folder = home() / "scratch"
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.iterdir():  # by a run that was killed
                if left.stat().st_mtime < time.time() - FORGOTTEN_S:
                    shutil.rmtree(left, ignore_errors=True)
            self._scratch = Path(tempfile.mkdtemp(dir=folder))
            self._resources.callback(shutil.rmtree, self._scratch, ignore_errors=True)
        return self._scratch

    def unavailable(self, *, served: bool = False) -> str | None:
        """Why there can be no guest here, in a line that names what is missing; None if nothing is known of."""
        if self._absent.get(served) is None and (served or self._place is None):
            self._absent[served] = needs.missing(emulated=not served and probe.probe() is not None)
        return self._absent.get(served)

    def __call__(
        self,
        *arguments: str,
        devices: Sequence[str] = (),
        modules: Sequence[str] = (),
        files: Mapping[str, bytes] | None = None,
        kernel: Kernel | None = None,
        append: str = "",
        timeout: float = BOOT_LIMIT,
        served: bool = False,
    ) -> Guest:
        """A guest, to be entered, with *arguments* of acrn-dm's command line and *devices* (``NAME,options``) in slots
        of its own choice, behind the console in slot 2 that brings commands.

        The kernel is Debian's, or *kernel*, with *append* added to its command line. *modules* of it are loaded besides
        those of virtio's disk, network card, console and entropy device; *files* are put into the guest by their path.

        With *served* acrn-dm is no machine: QEMU emulates one on this host, and a process of acrn-dm serves it the
        *devices* by vfio-user. What a driver makes of a device is seen in seconds then, wherever it is; the arguments
        of a machine have no place, and devices that need something of theirs (``acrn-dm-export``) neither.

        Entering raises HarnessUnavailable where there can be none, HarnessTimeout if it is not up after *timeout*
        seconds, HarnessError when acrn-dm refuses; with what the guest's kernel and acrn-dm said last.
        """

        if served and arguments:
            raise TypeError(f"there is no machine of acrn-dm's to have {' '.join(arguments)}: its devices are served")

        def boot() -> Shell:
            with progress.shown_by(self._say), self._skipping(served):
                if reason := self.unavailable(served=served):
                    raise HarnessUnavailable(reason)
                how = self._kept(kernel, modules, files) | {"append": append, "timeout": timeout}
                if served:
                    return self._serve(devices, how)
                return self._start(functools.partial(GuestShell, **how), [*arguments, *slots_for(devices, arguments)])

        return Guest(boot)

    @contextlib.contextmanager
    def _skipping(self, served: bool) -> Iterator[None]:
        try:
            yield
        except HarnessUnavailable as error:
            self._absent[served] = str(error)
            if self._skip is not None:
                self._skip(str(error))
            raise

    def _kept(self, kernel: Kernel | None, modules: Sequence[str], files: Mapping[str, bytes] | None) -> dict[str, Any]:
        """What a guest boots from, and the environment of acrn-dm."""
        stock = kernel or debian_kernel()
        image = guest_initramfs(
            stock,
            init=guest_init(SHELL),
            modules=[*GUEST_MODULES, *modules],
            files=files,
            behind=python.archive(),
        )
        return {"kernel": stock, "initramfs": image, "env": environment()}

    def _serve(self, devices: Sequence[str], how: Mapping[str, Any]) -> ServedShell:
        """Start a guest of QEMU's."""
        qemu = newer.with_client()
        with progress.step("booting a guest in a stock kernel under QEMU"):
            return ServedShell(scratch=self._folder(), devices=devices, qemu=qemu, **how)

    def _start(self, start: Callable[..., GuestShell], arguments: Sequence[str]) -> GuestShell:
        """Start a guest; a second time where the outer VM has hung, as QEMU's emulation does now and then."""
        place = self._chosen_place()
        with progress.step("booting a guest in a stock kernel"):
            try:
                return start(place, scratch=self._folder(), arguments=arguments, port=_free_port())
            except HarnessTimeout:
                if not isinstance(place, OuterVm) or place.alive():
                    raise
                place.restart()
                return start(place, scratch=self._folder(), arguments=arguments, port=_free_port())

    def _folder(self) -> Path:
        own = self.scratch / f"guest-{next(self._numbers)}"
        own.mkdir()
        return own

    def _chosen_place(self) -> Place:
        if self._place is None:
            self._place = Host() if probe.probe() is None else self._outer_vm()
        return self._place

    def _outer_vm(self) -> OuterVm:
        vm = OuterVm(name=f"outer-{os.getpid()}", shares=self._shares)
        with progress.step("booting the outer VM in software emulation, as no KVM here is fit for guests"):
            self._resources.callback(remove_logs, vm.name)
            return self._resources.enter_context(vm)


def environment() -> dict[str, str]:
    """What acrn-dm's environment is to have of this process's, and where this Python finds modules and byte code.

    Where the package was installed without byte code, that of the first guest is kept: making it takes ten seconds.
    """
    own = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    own.pop("PYTHONDONTWRITEBYTECODE", None)
    if sys.pycache_prefix is None and not Path(cache_from_source(str(probe.__file__))).exists():
        own["PYTHONPYCACHEPREFIX"] = str(home() / "bytecode")
    paths = (os.path.abspath(path) for path in sys.path if os.path.isdir(path or "."))
    return {**own, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _free_port() -> int:
    """A TCP port that is free on this host just now. The outer VM, which is new, has all ports free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
