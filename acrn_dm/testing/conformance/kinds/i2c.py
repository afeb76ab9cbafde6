"""Rules of I2C adapters (virtio 5.16)."""

import struct

import attrs

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.demand import started, world
from acrn_dm.testing.conformance.outside.world import I2cBus
from acrn_dm.testing.conformance.probes import Shape
from acrn_dm.testing.conformance.rule import rule
from acrn_dm.testing.driver import Completion, VirtioDriver

I2C = ("i2c",)
ZERO_LENGTH = 1 << 0
FAIL_NEXT, READ = 1, 2  # flags
OK, ERR = 0, 1


def header(address: int, flags: int = 0) -> bytes:
    """struct virtio_i2c_out_hdr for a 7-bit *address*."""
    return struct.pack("<HHI", address << 1, 0, flags)


@attrs.define(eq=False)
class Adapter:
    """A started adapter and its bus."""

    bench: Bench
    driver: VirtioDriver

    @property
    def bus(self) -> I2cBus:
        """Raises NotApplicable."""
        return world(self.bench, I2cBus)

    def do(self, address: int, *, data: bytes = b"", room: int = 0, flags: int = 0) -> Completion:
        """Do one request: a write of *data*, a read of *room* bytes, or neither."""
        out = (header(address, flags | (READ if room else 0)), *[data] * bool(data))
        shape = Shape(out=out, in_=(*[room] * bool(room), 1))
        return self.bench.exchange(self.driver.queue(0), shape)

    def write(self, data: bytes) -> None:
        """Write to the target that is there."""
        status = self.do(self.bus.present, data=data).data[-1]
        assert status == OK, f"a write gets status {status}"

    def read(self, length: int) -> bytes:
        """Read from it."""
        done = self.do(self.bus.present, room=length)
        assert done.data[-1] == OK, f"a read gets status {done.data[-1]}"
        return done.data[:-1]

    def several(self, *requests: tuple[int, bytes, int]) -> list[Completion]:
        """Queue (address, data, flags) writes before the device sees one; returns their completions."""
        queue = self.driver.queue(0)
        for address, data, flags in requests:
            queue.send([header(address, flags), data], [1])
        queue.kick()
        return self.bench.collect(queue, len(requests))


def _adapter(bench: Bench) -> Adapter:
    adapter = Adapter(bench, started(bench))
    adapter.bus.transfers()
    return adapter


@rule("i2c.feat.offer", kinds=I2C)
def zero_length_requests_are_offered(bench: Bench) -> None:
    assert bench.offered & ZERO_LENGTH, "ZERO_LENGTH_REQUEST is not offered"


@rule("i2c.feat.reject", kinds=I2C)
def driver_without_them_is_refused(bench: Bench) -> None:
    driver = bench.driver()
    assert not driver.negotiate(bench.offered & ~ZERO_LENGTH), "a driver without ZERO_LENGTH_REQUEST is accepted"
    assert driver.negotiate(bench.offered), "a driver with it is refused"


def _unchanged(bench: Bench, part: slice) -> None:
    """*part* of the request's readable bytes, header and data, is in memory after it as it was before."""
    adapter = Adapter(bench, started(bench))
    queue, memory = adapter.driver.queue(0), bench.machine.memory
    data = b"\x00what the guest has written"
    for flags in (0, FAIL_NEXT, 0xFFFF_FF00):
        request = header(0x50, flags) + data
        token = queue.send([request], [1])
        base, length = bench.machine.heap.used_range
        at = base + memory.read(base, length).rindex(request)
        queue.kick()
        done = bench.collect(queue, 1)
        assert [c.token for c in done] == [token], "a request does not come back"
        assert memory.read(at, len(request))[part] == request[part], "the device changes what it may only read"


@rule("i2c.no_change.addr", kinds=I2C)
def address_stays_as_it_was_written(bench: Bench) -> None:
    _unchanged(bench, slice(0, 4))


@rule("i2c.no_change.flags", kinds=I2C)
def flags_stay_as_they_were_written(bench: Bench) -> None:
    _unchanged(bench, slice(4, 8))


@rule("i2c.no_change.wbuf", kinds=I2C)
def data_stay_as_they_were_written(bench: Bench) -> None:
    _unchanged(bench, slice(8, None))


@rule("i2c.read.fill", kinds=I2C, over=("interrupts",))
def read_fills_its_buffer(bench: Bench) -> None:
    adapter = _adapter(bench)
    for length in (1, 4, 16):
        done = adapter.do(adapter.bus.present, room=length)
        assert done.data[-1] == OK, f"a read of {length} bytes gets status {done.data[-1]}"
        assert done.written == length + 1, f"a read of {length} bytes uses {done.written}"
        ((address, read, data),) = adapter.bus.transfers()
        assert (address, read) == (adapter.bus.present, True), "the bus sees another transfer"
        assert done.data[:-1] == data, "the guest gets other bytes than the bus carried"


@rule("i2c.order", kinds=I2C)
def requests_are_done_in_order(bench: Bench) -> None:
    adapter = _adapter(bench)
    address = adapter.bus.present
    data = [bytes((0, n)) for n in range(8)]
    done = adapter.several(*((address, part, 0) for part in data))
    assert [c.token for c in done] == sorted(c.token for c in done), "requests are answered out of order"
    assert len(done) == len(data)
    assert [t[2] for t in adapter.bus.transfers()] == data, "the bus sees another order"


@rule("i2c.fail.first", kinds=I2C)
def failed_request_says_so(bench: Bench) -> None:
    adapter = _adapter(bench)
    there, away = adapter.bus.present, adapter.bus.absent
    done = adapter.several((there, b"\0a", FAIL_NEXT), (away, b"\0b", FAIL_NEXT), (there, b"\0c", 0))
    assert [c.data[-1] for c in done][:2] == [OK, ERR], f"the group gets {[c.data[-1] for c in done]}"


@rule("d.i2c.group_fail", kinds=I2C)
def rest_of_a_failed_group_is_not_done(bench: Bench) -> None:
    adapter = _adapter(bench)
    there, away = adapter.bus.present, adapter.bus.absent
    done = adapter.several(
        (away, b"\0a", FAIL_NEXT), (there, b"\0b", FAIL_NEXT), (there, b"\0c", 0), (there, b"\0d", 0)
    )
    assert [c.data[-1] for c in done] == [ERR, ERR, ERR, OK], f"the group gets {[c.data[-1] for c in done]}"
    carried = [t[2] for t in adapter.bus.transfers() if t[0] == there]
    assert carried == [b"\0d"], f"the bus carries {carried} after a failure in the group"


@rule("d.i2c.addr", kinds=I2C)
def address_is_shifted(bench: Bench) -> None:
    adapter = _adapter(bench)
    adapter.write(b"\0\x11")
    assert [t[0] for t in adapter.bus.transfers()] == [adapter.bus.present], "the bus sees another address"
    assert adapter.do(adapter.bus.absent, data=b"\0").data[-1] == ERR, "an address that nobody has is acknowledged"


@rule("d.i2c.flags", kinds=I2C)
def flags_mean_read_and_group(bench: Bench) -> None:
    adapter = _adapter(bench)
    adapter.write(b"\0\x21\x22")
    adapter.write(b"\0")
    adapter.read(2)
    assert [t[1] for t in adapter.bus.transfers()] == [False, False, True], "the bus sees other directions"
    status = adapter.do(adapter.bus.absent, data=b"\0", flags=0).data[-1]
    assert status == ERR
    adapter.write(b"\0")  # a failure without FAIL_NEXT ends nothing


@rule("d.i2c.zero_len", kinds=I2C, needs=("ZERO_LENGTH_REQUEST",))
def request_without_data_is_done(bench: Bench) -> None:
    adapter = _adapter(bench)
    for address, expected in ((adapter.bus.present, OK), (adapter.bus.absent, ERR)):
        done = adapter.do(address)
        assert done.data[-1] == expected, f"an empty request to {address:#x} gets status {done.data[-1]}"
        assert done.written == 1, f"an empty request uses {done.written} bytes"


@rule("d.i2c.dir_flag", kinds=I2C)
def direction_that_does_not_fit_is_an_error(bench: Bench) -> None:
    adapter = _adapter(bench)
    queue = adapter.driver.queue(0)
    wrong = (
        Shape(out=(header(adapter.bus.present, READ), b"\0\0"), in_=(1,)),  # a read with a buffer to be written
        Shape(out=(header(adapter.bus.present),), in_=(4, 1)),  # a write with one to be read
    )
    for shape in wrong:
        done = bench.exchange(queue, shape)
        assert done.data[-1] == ERR, f"a request whose buffer has the wrong direction gets status {done.data[-1]}"
        assert not adapter.bus.transfers(), "it is done nevertheless"
    adapter.write(b"\0")
