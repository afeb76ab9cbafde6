"""Every kind of virtio device behind the program: its configuration and its queues, by clients of vhost-user."""

import contextlib
import os
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.backends import user as vhost_user
from acrn_dm.backends.wire.message import ProtocolFeature, Request
from acrn_dm.devices import virtio_blk, virtio_net
from acrn_dm.memory.guest_memory import MIB
from acrn_dm.testing import DriverRing, SimMachine
from acrn_dm.testing.driver import EVENT_IDX, INDIRECT_DESC, PACKED, VERSION_1
from tests.backends.user.user_rig import IN, OUT, Daemon, DiskLoad, eventually
from tests.export.vhost_user.export_rig import Client, wait_used

PROGRAM = (sys.executable, "-m", "acrn_dm.export.cli", "vhost-user")
CONFIG = ProtocolFeature.REPLY_ACK | ProtocolFeature.CONFIG
OUTPUT, INPUT = 0x80000, 0x90000


@contextlib.contextmanager
def exported(folder: Path, text: str) -> Iterator[Daemon]:
    daemon = Daemon([*PROGRAM, text, f"--socket-path={folder / 's'}"], folder / "s", folder / "log")
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()


@contextlib.contextmanager
def connected(folder: Path, text: str, protocol: int = ProtocolFeature.REPLY_ACK) -> Iterator[Client]:
    """A client of the device, with memory."""
    with exported(folder, text) as daemon:
        client = Client.connect(daemon.socket)
        try:
            client.negotiate(protocol)
            client.share_memory()
            yield client
        finally:
            client.close()


def ask(client: Client, ring: tuple[DriverRing, int, int], count: int, out: bytes = b"", *, room: int = 0) -> bytes:
    """One request, the *count*-th; returns what the device wrote."""
    driver, kick, _ = ring
    parts = [(OUTPUT, len(out))] if out else []
    client.write(OUTPUT, out)
    client.write(INPUT, bytes(room))
    driver.add_chain(parts, [(INPUT, room)] if room else [])
    driver.publish()
    os.eventfd_write(kick, 1)
    wait_used(driver, count)
    return client.read(INPUT, room)


def config(client: Client, offset: int, size: int) -> bytes:
    answer = client.ask(Request.GET_CONFIG, struct.pack("<III", offset, size, 0) + bytes(size))
    assert answer is not None
    return answer[12:]


@pytest.mark.parametrize("kind", ["virtio-rnd", "virtio-fast-rng"])
def test_entropy(kind: str, tmp_path: Path) -> None:
    with connected(tmp_path, kind) as client:
        ring = client.ring(0)
        assert ask(client, ring, 1, room=64) != bytes(64)
        assert ask(client, ring, 2, room=64) != bytes(64)
        assert os.eventfd_read(ring[2]) >= 1


def test_i2c_reads_what_was_written(tmp_path: Path) -> None:
    with connected(tmp_path, "virtio-i2c,device=24c02@0x50") as client:
        ring = client.ring(0)
        header = struct.pack("<HHI", 0x50 << 1, 0, 0)
        assert ask(client, ring, 1, header + b"\x10abc", room=1) == b"\0"


def test_gpio_sets_and_gets_a_line(tmp_path: Path) -> None:
    def request(kind: int, value: int = 0) -> bytes:
        return struct.pack("<HHI", kind, 1, value)

    with connected(tmp_path, "virtio-gpio,count=2", CONFIG) as client:
        assert struct.unpack_from("<H", config(client, 0, 8)) == (2,)
        ring = client.ring(0)
        assert ask(client, ring, 1, request(4, 1), room=2)[0] == 0  # VIRTIO_GPIO_MSG_SET_VALUE, 5.18.6
        assert ask(client, ring, 2, request(3, 1), room=2)[0] == 0  # SET_DIRECTION out
        assert ask(client, ring, 3, request(2), room=2) == b"\0\1"  # GET_VALUE


def test_input_is_described_and_plays(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("key A\n")
    with connected(tmp_path, "virtio-input,kind=keyboard,name=exported keys", CONFIG) as client:
        client.must(Request.SET_CONFIG, struct.pack("<III", 0, 1, 0) + b"\1")  # select = VIRTIO_INPUT_CFG_ID_NAME
        size = config(client, 2, 1)[0]
        assert config(client, 8, size) == b"exported keys"


def test_disk_with_several_queues_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(4 * MIB))
    with connected(tmp_path, f"virtio-blk,mq=4,{tmp_path / 'image'}", CONFIG) as client:
        assert client.queues() == 4
        assert struct.unpack("<Q", config(client, 0, 8)) == (4 * MIB // 512,)
        assert struct.unpack("<H", config(client, 34, 2)) == (4,)  # num_queues, 5.2.4


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", ["", "iothread,"])
def test_disk_behind_our_own_front_end(tmp_path: Path, packed: bool, options: str) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(8 * MIB))
    blocks = random.Random(3).sample(range(8 * MIB // 4096), 500)
    content = {block: random.Random(block).randbytes(4096) for block in blocks}
    with (
        exported(tmp_path, f"virtio-blk,{options}{image},poll_us=20") as daemon,
        SimMachine(memory=32 * MIB, plugins=[virtio_blk, vhost_user]) as machine,
    ):
        machine.add("virtio-blk", f"vhost-user={daemon.socket}", slot=3)
        driver = machine.driver(3)
        driver.start(VERSION_1 | EVENT_IDX | INDIRECT_DESC | (PACKED if packed else 0))
        load = DiskLoad(machine, driver, 4096)
        load.run(OUT, blocks, content.__getitem__)
        load.run(IN, blocks, content.__getitem__)
        assert machine.failures == []
    for block in blocks:
        assert image.read_bytes()[block * 4096 : (block + 1) * 4096] == content[block]


@pytest.mark.parametrize("pairs", [1, 2])
def test_card_whose_driver_uses_one_of_its_pairs_behind_our_own_front_end(tmp_path: Path, pairs: int) -> None:
    with (
        exported(tmp_path, f"virtio-net,driver=loop,mq={pairs}") as daemon,
        SimMachine(plugins=[virtio_net, vhost_user]) as machine,
    ):
        machine.add("virtio-net", f"vhost-user={daemon.socket},mq={pairs}", slot=3)
        driver = machine.driver(3)
        driver.start()
        driver.queue(0).send(in_=[2048])
        driver.queue(0).kick()
        driver.queue(1).send([bytes(12) + b"\xff" * 60])
        driver.queue(1).kick()
        eventually(machine, lambda: bool(driver.queue(0).completed()), 10)
