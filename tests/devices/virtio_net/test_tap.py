"""virtio-net on real taps; needs root and /dev/net/tun."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.devices import virtio_net
from acrn_dm.devices.virtio_net import acrn_dm_device_types, backend, tap_settings
from acrn_dm.devices.virtio_net.backend import open_tap
from acrn_dm.devices.virtio_net.tap_settings import TapSettings
from acrn_dm.testing import SimMachine, VirtioDriver
from tests.devices.virtio_net.net_rig import GUEST_CSUM, MRG_RXBUF, NEEDS_CSUM, PLAIN, frame, vnet

pytestmark = pytest.mark.process
ETH_P_ALL = 3


def ip(*arguments: str) -> None:
    """Run iproute2."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)


@pytest.fixture(params=[(), ("multi_queue",)], ids=["single", "multi_queue"])
def tap(request: pytest.FixtureRequest) -> Iterator[str]:
    if os.geteuid() != 0 or shutil.which("ip") is None or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs root, iproute2 and /dev/net/tun")
    name = f"dmt{os.getpid() % 100000}"
    try:
        ip("tuntap", "add", "mode", "tap", "name", name, *request.param)
    except subprocess.CalledProcessError as e:
        pytest.skip(f"no tap can be made here: {e.stderr.strip()}")
    try:
        ip("link", "set", name, "addrgenmode", "none")
        ip("link", "set", name, "up")
        yield name
    finally:
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True, timeout=30)


@pytest.fixture
def wire(tap: str) -> Iterator[socket.socket]:
    """The host's side of the interface."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as packet:
        packet.bind((tap, 0))
        packet.settimeout(10)
        yield packet


def receive(wire: socket.socket, data: bytes, driver: VirtioDriver, header: int = 12) -> bytes:
    """Send *data* from the host until it arrives in the guest, which may get other frames too.

    The kernel drops frames for up to a second after a tap was attached, until it noticed the carrier.
    """
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        wire.send(data)
        driver.machine.io_loops["io"].step(0.2)
        for done in driver.queue(0).completed():
            if done.data[header + 12 : header + 14] == b"\x88\xb5":
                return done.data[: done.written]
    raise AssertionError("no frame arrived")


def experimental(wire: socket.socket) -> bytes:
    """The next frame of the local experimental type; the host may send others."""
    while True:
        data = wire.recv(1 << 17)
        if data[12:14] == b"\x88\xb5":
            return data


@pytest.mark.parametrize("features", [None, 0, MRG_RXBUF], ids=["all", "none", "mergeable"])
def test_frames_cross_a_real_tap_both_ways(tap: str, wire: socket.socket, features: int | None) -> None:
    with SimMachine(memory=32 << 20) as machine:
        machine.add(acrn_dm_device_types()[0], f"tap={tap}", slot=3)
        driver = machine.driver(3)
        driver.start(features)
        for _ in range(16):
            driver.queue(0).send([], [70000 if features == 0 else 2048])
        driver.queue(0).kick()
        machine.settle()
        driver.queue(1).transfer([PLAIN + frame(b"to the host")])
        assert experimental(wire) == frame(b"to the host")
        arrived = receive(wire, frame(b"to the guest"), driver)
        assert arrived[10:] == b"\1\0" + frame(b"to the guest")


def test_legacy_header_of_ten_bytes_crosses_a_real_tap(tap: str, wire: socket.socket) -> None:
    with SimMachine() as machine:
        machine.add(acrn_dm_device_types()[0], f"tap={tap}", slot=3)
        driver = machine.driver_legacy(3)
        driver.start(0)
        for _ in range(16):
            driver.queue(0).send([], [2048])
        driver.queue(0).kick()
        machine.settle()
        driver.queue(1).transfer([PLAIN[:10] + frame(b"legacy")])
        assert experimental(wire) == frame(b"legacy")
        assert receive(wire, frame(b"back"), driver, 10)[10:] == frame(b"back")


def test_kernel_completes_a_checksum_the_guest_left_open(tap: str, wire: socket.socket) -> None:
    body = bytearray(frame(b"\0" * 46))
    with SimMachine() as machine:
        machine.add(acrn_dm_device_types()[0], f"tap={tap}", slot=3)
        driver = machine.driver(3)
        driver.start()
        driver.queue(1).transfer([vnet(NEEDS_CSUM, start=34, offset=6) + bytes(2) + bytes(body)])
        # An AF_PACKET reader may see the frame before its checksum is completed; that it arrives shows it was taken.
        assert len(experimental(wire)) == 60


def test_offloads_are_set_and_taken_back(tap: str) -> None:
    with SimMachine() as machine:
        machine.add(acrn_dm_device_types()[0], f"tap={tap}", slot=3)
        driver = machine.driver(3)
        for features in (None, 0, GUEST_CSUM):
            driver.start(features)
        assert machine.failures == []


def test_tap_in_use_is_an_error_with_a_hint(tap: str) -> None:
    first = open_tap(tap)
    try:
        second = open_tap(tap)
    except HostError as e:
        assert "another process uses it" in str(e)  # noqa: PT017 - a multi-queue tap may be opened again
    else:
        second.close()
    first.close()


def test_tap_of_one_queue_that_nobody_uses_is_found_without_a_search(tap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []
    monkeypatch.setattr(backend.processes, "openers", lambda wanted: searched.append(wanted) or iter(()))
    assert backend.user(tap) is None
    assert len(searched) == (1 if backend._tun_flags(tap) & backend.IFF_MULTI_QUEUE else 0)


def test_deleted_interface_takes_the_link_down(tap: str) -> None:
    with SimMachine() as machine:
        machine.add(acrn_dm_device_types()[0], f"tap={tap}", slot=3)
        driver = machine.driver(3)
        driver.start()
        driver.queue(0).send([], [2048])
        driver.queue(0).kick()
        machine.settle()
        ip("link", "del", tap)
        machine.settle()
        assert driver.read_config(6, 2) == b"\0\0"
        assert driver.queue(1).transfer([PLAIN + frame()]).written == 0
        assert sum(loop.step() for loop in machine.io_loops.values()) == 0


@pytest.mark.parametrize("native", [True, False], ids=["native", "python"])
@pytest.mark.parametrize("tap", [()], ids=["single"], indirect=True)
def test_what_comes_without_a_receive_queue_is_lost_and_nothing_else(
    tap: str, wire: socket.socket, native: bool
) -> None:
    """A tap does not cut its packet header: who reads less gets EINVAL, which is no reason to give the link up."""
    with SimMachine(native=native) as machine:
        machine.add(acrn_dm_device_types()[0], f"tap={tap}", slot=3)
        driver = machine.driver(3)
        driver.start()
        for _ in range(16):
            driver.queue(0).send([], [2048])
        driver.queue(0).kick()
        machine.settle()
        receive(wire, frame(b"before"), driver)
        driver.reset_queue(0)
        wire.send(frame(b"nobody's"))
        machine.settle()
        driver.setup_queue(0)
        for _ in range(16):
            driver.queue(0).send([], [2048])
        driver.queue(0).kick()
        machine.settle()
        assert driver.read_config(6, 2) == b"\1\0"
        assert receive(wire, frame(b"after"), driver)[12:] == frame(b"after")


def set_pairs(driver: VirtioDriver, control: int, pairs: int) -> bytes:
    """The driver's VQ_PAIRS_SET; returns the acknowledgement."""
    return driver.queue(control).transfer([bytes((4, 0)), pairs.to_bytes(2, "little")], [1]).data


@pytest.mark.parametrize("tap", [("multi_queue",)], ids=["multi_queue"], indirect=True)
def test_pairs_of_a_real_tap_are_switched_and_both_carry_frames(tap: str, wire: socket.socket) -> None:
    with SimMachine() as machine:
        machine.add(acrn_dm_device_types()[0], f"tap={tap},mq=2", slot=3)
        driver = machine.driver(3)
        driver.start()
        for pairs in (2, 1, 1, 2):
            assert set_pairs(driver, 4, pairs) == b"\0"
        for queue in (1, 3):
            driver.queue(queue).transfer([PLAIN, frame(bytes([queue]))])
            assert experimental(wire)[14] == queue
        driver.reset()
        driver.start()
        assert set_pairs(driver, 4, 2) == b"\0"


@pytest.mark.parametrize("tap", [()], ids=["single"], indirect=True)
def test_single_queue_tap_is_named_before_the_start_when_several_are_wanted(tap: str) -> None:
    with SimMachine() as machine:
        lines = machine.add(acrn_dm_device_types()[0], f"tap={tap},mq=2", slot=3).check()
    assert len(lines) == 1
    assert "multi_queue" in lines[0]


def test_detached_descriptor_gets_its_settings_when_it_is_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detached tap refuses them with EBADFD; a macvtap keeps the header's length for each descriptor."""
    calls: list[tuple[int, object]] = []
    monkeypatch.setattr("fcntl.ioctl", lambda fd, request, argument: calls.append((request, argument)))
    tap = backend.Tap(fd=-1, vnet_header=True, name="t0", found=TapSettings(header_bytes=10, offloads=0))
    tap.attach(False)
    calls.clear()
    tap.configure(header_bytes=12, offloads=0)
    assert calls == []
    tap.attach(True)
    settings = [(tap_settings.TUNSETVNETHDRSZ, b"\x0c\0\0\0"), (tap_settings.TUNSETOFFLOAD, 0)]
    assert calls[1:] == settings
    tap.configure(header_bytes=12, offloads=0)
    assert calls[3:] == settings


USER = """
import sys
from acrn_dm.devices.virtio_net.backend import open_tap
tap = open_tap(sys.argv[1]); print("open", flush=True); sys.stdin.read()
"""


def test_tap_that_another_process_has_is_refused_before_the_start_and_the_process_is_named(tap: str) -> None:
    """The kernel refuses the second user of a tap with one queue only; of one with several each gets some frames."""
    command = [sys.executable, "-c", USER, tap]
    with SimMachine(plugins=[virtio_net]) as machine:
        device = machine.add("virtio-net", f"tap={tap}", slot=3)
        assert device.check() == []
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"open\n"
            assert device.check() == [f"virtio-net-3:0: tap {tap} is in use by process {other.pid} (-c)"]
            other.kill()
