"""A disk on a driver: what the guest sees of what it does, however it does it, and of what it does wrong."""

import errno
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, cast

import pytest

from tests.devices.virtio_blk.blk_rig import DISCARD, FLUSH, IN, IOERR, OK, OUT, UNSUPP, WRITE_ZEROES, header, segment
from tests.devices.virtio_blk.drivers.driver_rig import LateRam, Ram, driven

PATTERN = bytes(range(256)) * 2
LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["modern", "legacy"])


def driver_of(disk: Any) -> Any:
    return disk.device.image.driver


@LEGACY
def test_written_data_is_read_back(legacy: bool) -> None:
    with driven(legacy=legacy) as disk:
        assert disk.write(7, PATTERN) == OK
        assert disk.read(7) == PATTERN
        assert disk.read(6) == bytes(512)


def test_capacity_is_the_driver_s_size() -> None:
    with driven(text="driver=ram,sectors=9") as disk:
        assert int.from_bytes(disk.driver.read_config(0, 8), "little") == 9
        assert disk.request(IN, 9, room=512).data[-1] == IOERR
        assert driver_of(disk).calls == []


def test_buffers_of_one_request_are_filled_in_order() -> None:
    with driven() as disk:
        disk.write(0, PATTERN * 2)
        done = disk.queue.transfer([header(IN)], [100, 412, 512, 1])
        assert done.data == PATTERN * 2 + b"\0"


def test_durable_write_is_followed_by_a_flush() -> None:
    with driven() as disk:
        disk.write(0, PATTERN)
        assert driver_of(disk).calls == ["write", "flush"]


def test_write_of_a_cached_disk_is_flushed_when_the_guest_says_so() -> None:
    with driven(text="driver=ram,cache=writeback") as disk:
        disk.write(0, PATTERN)
        assert driver_of(disk).calls == ["write"]
        assert disk.request(FLUSH).data[-1] == OK
        assert driver_of(disk).calls == ["write", "flush"]


def test_zeroes_are_written_where_the_driver_has_nothing_better() -> None:
    with driven() as disk:
        disk.write(3, PATTERN)
        assert disk.request(WRITE_ZEROES, data=segment(3, 1)).data[-1] == OK
        assert disk.read(3) == bytes(512)


def test_discard_that_the_driver_has_not_is_unsupported() -> None:
    with driven(text="driver=ram,discard") as disk:
        assert disk.request(DISCARD, data=segment(3, 1)).data[-1] == UNSUPP


@LEGACY
def test_future_ends_a_request_from_another_thread(legacy: bool) -> None:
    with driven(LateRam, legacy=legacy) as disk:
        driver = driver_of(disk)
        disk.queue.send(out=[header(OUT, 5), PATTERN], in_=[1])
        disk.queue.kick()
        disk.machine.io_loop("io").step()
        driver.wait_for(1)
        assert disk.queue.completed() == []
        driver.end()
        disk.machine.settle()
        assert [done.data for done in disk.queue.completed()] == [b"\0"]
        assert driver.data[5 * 512 :][:512] == PATTERN


def test_more_futures_than_threads_are_in_flight_and_end_in_any_order() -> None:
    with driven(LateRam) as disk:
        driver = driver_of(disk)
        tokens = [disk.queue.send(out=[header(IN, n)], in_=[512, 1]) for n in range(20)]
        disk.queue.kick()
        disk.machine.io_loop("io").step()
        driver.wait_for(20)
        for _ in range(20):
            driver.end(-1)
        disk.machine.settle()
        done = disk.queue.completed()
        assert sorted(d.token for d in done) == sorted(tokens)
        assert {d.data[-1] for d in done} == {OK}


def test_reset_does_not_wait_for_futures_that_do_not_run() -> None:
    with driven(LateRam) as disk:
        driver = driver_of(disk)
        disk.queue.send(out=[header(IN)], in_=[512, 1])
        disk.queue.kick()
        disk.machine.io_loop("io").step()
        driver.wait_for(1)
        disk.driver.reset()
        assert disk.driver.status == 0
        assert driver.begun[0][0].cancelled()
        driver.end()  # which does nothing: nobody wants it
        assert driver.calls == []


def test_reset_waits_for_a_future_that_runs() -> None:
    with driven(LateRam) as disk:
        driver = driver_of(disk)
        disk.queue.send(out=[header(IN)], in_=[512, 1])
        disk.queue.kick()
        disk.machine.io_loop("io").step()
        driver.wait_for(1)
        later, _ = driver.begun[0]
        later.set_running_or_notify_cancel()
        disk.driver.status = 0
        assert disk.driver.status != 0
        later.set_result(None)
        disk.machine.settle()
        assert disk.driver.status == 0


class Wrong(Ram):
    """Whose reads go wrong."""

    fault: Callable[[], object]

    def read(self, offset: int, buffers: object) -> Any:
        return type(self).fault()


def wrong(fault: Callable[[], object]) -> type[Wrong]:
    return cast(type[Wrong], type("Wrong", (Wrong,), {"fault": staticmethod(fault)}))


def raising(error: BaseException) -> Callable[[], object]:
    def fault() -> object:
        raise error

    return fault


def failed(error: BaseException) -> Callable[[], object]:
    def fault() -> object:
        later: Future[None] = Future()
        later.set_exception(error)
        return later

    return fault


FAULTS = {
    "raises": (raising(ZeroDivisionError("boom")), "ZeroDivisionError: boom"),
    "exits": (raising(SystemExit(3)), "it would end the program: sys.exit(3)"),
    "interrupts": (raising(KeyboardInterrupt()), "KeyboardInterrupt"),
    "is not there": (raising(NotImplementedError()), "NotImplementedError"),
    "counts": (lambda: 512, "returned int, not None or a Future"),
    "later raises": (failed(ValueError("late")), "ValueError: late"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_fault_of_a_driver_is_one_line_and_ioerr(case: str, caplog: pytest.LogCaptureFixture) -> None:
    fault, said = FAULTS[case]
    with caplog.at_level(logging.WARNING), driven(wrong(fault), "driver=ram,rerror=stop") as disk:
        for _ in range(3):
            assert disk.request(IN, room=512).data[-1] == IOERR
        assert disk.write(0, PATTERN) == OK  # what is right goes on
    (line,) = [record.getMessage() for record in caplog.records]
    assert said in line
    assert "driver ram (plugin" in line


def test_failure_of_the_host_is_told_with_its_text(caplog: pytest.LogCaptureFixture) -> None:
    with driven(wrong(raising(OSError(errno.EIO, "the disk is on fire")))) as disk:
        assert disk.request(IN, room=512).data[-1] == IOERR
    assert "the disk is on fire" in caplog.text


def test_flush_that_has_failed_stays_failed() -> None:
    class Flushless(Ram):
        def flush(self) -> None:
            self.calls.append("flush")
            raise OSError(errno.EIO, "lost")

    with driven(Flushless, "driver=ram,cache=writeback") as disk:
        assert [disk.request(FLUSH).data[-1] for _ in range(2)] == [IOERR, IOERR]
        assert driver_of(disk).calls == ["flush"]


def read_four(disk: Any) -> None:
    for n in range(4):
        disk.queue.send(out=[header(IN, n)], in_=[512, 1])
    disk.queue.kick()
    disk.machine.settle()
    assert len(disk.queue.completed()) == 4


def test_calls_come_one_at_a_time() -> None:
    alone = []

    class Narrow(Ram):
        def read(self, offset: int, buffers: object) -> None:
            alone.append(disk.device.image._turn.locked())

    with driven(Narrow) as disk:
        read_four(disk)
    assert alone == [True] * 4


def test_calls_come_together_where_the_driver_can_have_that() -> None:
    together = threading.Barrier(4, timeout=30)

    class Wide(Ram):
        parallel = True

        def read(self, offset: int, buffers: object) -> None:
            together.wait()

    with driven(Wide) as disk:
        read_four(disk)


def test_buffers_that_a_driver_keeps_are_of_no_use_when_it_is_done() -> None:
    class Keeper(Ram):
        kept: list[memoryview] = []

        def read(self, offset: int, buffers: Sequence[memoryview]) -> None:
            self.kept.extend(buffers)

    with driven(Keeper) as disk:
        assert disk.request(IN, room=512).data[-1] == OK
        with pytest.raises(ValueError, match="released"):
            Keeper.kept[0][0] = 1


def test_pause_waits_for_a_future_and_answers_it() -> None:
    with driven(LateRam) as disk:
        driver = driver_of(disk)
        disk.queue.send(out=[header(IN)], in_=[512, 1])
        disk.queue.kick()
        disk.machine.io_loop("io").step()
        driver.wait_for(1)
        (function,) = disk.machine.bus.functions
        ends = threading.Thread(target=driver.end)
        with function.lock:
            ends.start()
            function.data_plane.pause()
            function.data_plane.resume()
        ends.join()
        disk.machine.settle()
        assert [done.data[-1] for done in disk.queue.completed()] == [OK]
