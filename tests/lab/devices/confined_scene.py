"""The shared guest's devices that are in processes of their own, in strict sandboxes, and what stands behind them."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

from acrn_dm.testing.guest.outer.channel import GuestProcess
from acrn_dm.testing.guest.outer.vm import OuterVm
from acrn_dm.testing.guest.process import Command
from lab.paths import LAB
from tests.contract.plugins.installed import install
from tests.lab.stemmed import Stemmed

FOLDER = LAB / "confined"  # this host and the outer VM share it
SITE, STARTED, ORDERS = FOLDER / "site", FOLDER / "site.log", FOLDER / "orders"
IMAGE, TAP = "/tmp/confined-image", "confined0"
IMAGE_MIB = 8
HOST, GUEST = "198.51.100.25", "198.51.100.26"
STRICT = "process=on,sandbox=strict"
DEVICES = {
    "disk": f"virtio-blk,{IMAGE},{STRICT}",
    "card": f"virtio-net,tap={TAP},{STRICT}",
    "greedy": f"greedy,orders={ORDERS},{STRICT}",
}


@contextmanager
def prepared(vm: OuterVm) -> Iterator[None]:
    """What stands behind them: an image, a tap, a plugin that is installed for this machine alone."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    install(SITE, "greedy", "", target="tests.lab.devices.greedy", devices=["greedy"])
    ORDERS.write_text("")
    tap = f"ip tuntap add dev {TAP} mode tap && ip address add {HOST}/30 dev {TAP} && ip link set {TAP} up"
    made = vm.run(f"truncate -s {IMAGE_MIB}M {IMAGE} && {tap}")
    assert made.rc == 0, made.stderr
    yield
    vm.run(f"ip link delete {TAP}")


@attrs.frozen
class WithSite:
    """The place, where acrn-dm finds the plugins in ``SITE``, too."""

    place: Stemmed

    def spawn(
        self, command: Command, *, cwd: str | Path | None = None, env: Mapping[str, str] | None = None
    ) -> GuestProcess:
        """As there."""
        if list(command[1:3]) == ["-m", "acrn_dm"]:
            command = [command[0], "-m", "tests.lab.devices.sited", str(SITE), *command[3:]]
        return self.place.spawn(command, cwd=cwd, env=env)
