"""The benches for drivers: what a test of one sees is what a device would."""

import socket

import pytest

from acrn_dm import PacketFile, PluginError
from acrn_dm.testing import BlockBench, PacketBench
from tests.devices.virtio_blk.drivers import driver_rig as block
from tests.devices.virtio_net.drivers import driver_rig as packet
from tests.devices.virtio_net.net_rig import frame
from tests.patience import comes_true

PATTERN = bytes(range(256)) * 4


def test_block_driver_gets_the_pieces_that_it_is_to_be_tried_with() -> None:
    sizes = []

    class Measured(block.Ram):
        def write(self, offset: int, buffers: object) -> None:
            sizes.extend(len(view) for view in buffers)  # type: ignore[attr-defined]
            super().write(offset, buffers)  # type: ignore[arg-type]

    with BlockBench("ram,sectors=8", plugins=[block.Plugin(Measured)]) as disk:
        disk.write(512, PATTERN, pieces=[1, 510])
        assert sizes == [1, 510, 513]
        assert disk.read(512, 1024, pieces=[100]) == PATTERN
        assert disk.size == 8 * 512


def test_fault_of_a_block_driver_is_told() -> None:
    with BlockBench("ram", plugins=[block.Plugin(block.Ram)]) as disk:
        disk.driver.flush = None  # type: ignore[assignment,method-assign]
        with pytest.raises(OSError, match=r"driver ram .*TypeError"):
            disk.flush()


def test_block_driver_that_has_no_size_is_refused() -> None:
    class Sizeless(block.Ram):
        def open(self) -> None:
            self.size = 0

    with pytest.raises(PluginError, match="size is 0"):
        BlockBench("ram", plugins=[block.Plugin(Sizeless)])


def test_frames_pass_both_ways() -> None:
    with PacketBench("sink", plugins=[packet.Plugin()]) as card:
        sink = card.driver
        assert isinstance(sink, packet.Sink)
        assert card.send(frame(b"out"))
        assert comes_true(lambda: sink.sent == [(frame(b"out"), 0)])
        assert sink.port is not None
        sink.port.receive(frame(b"in"))
        assert card.receive() == frame(b"in")
        assert card.receive(seconds=0) is None
        sink.port.link(False)
        assert card.links == [False]


def test_packet_driver_with_descriptors_is_used_by_them() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    class Described(packet.Sink):
        def files(self, pairs: int) -> list[PacketFile]:
            near.setblocking(False)
            return [PacketFile(near.detach(), False)]

    with far, PacketBench("sink", plugins=[packet.Plugin(Described)]) as card:
        assert card.send(frame(b"out"))
        assert far.recv(2048) == frame(b"out")
        far.send(frame(b"in"))
        assert card.receive() == frame(b"in")
