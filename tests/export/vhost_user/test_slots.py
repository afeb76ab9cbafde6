"""Memory that comes region by region (CONFIGURE_MEM_SLOTS), as many as there are slots, good and bad."""

import os
import struct

import attrs
import pytest

from acrn_dm.backends.wire import payload
from acrn_dm.backends.wire.message import Request
from acrn_dm.testing import DriverRing, RingLayout
from tests.backends.user.user_rig import Daemon
from tests.export.vhost_user.export_rig import MEMORY, REPLY_ACK, SLOTS, USER, Client, serves, wait_used

PAGE = 0x1000
STEP = 0x10000  # from region to region; gaps between them
COUNT = payload.MAX_SLOTS


@attrs.define
class Scattered:
    """The client's memory, page *n* of which the guest has at n * STEP."""

    client: Client

    def place(self, gpa: int) -> int:
        return gpa // STEP * PAGE + gpa % STEP

    def read(self, gpa: int, length: int) -> bytes:
        return self.client.read(self.place(gpa), length)

    def write(self, gpa: int, data: bytes) -> None:
        self.client.write(self.place(gpa), data)


def region(number: int, size: int = PAGE) -> bytes:
    """The number-th, in the place of the client's page."""
    return struct.pack("<5Q", 0, number * STEP, size, USER + number * STEP, number * PAGE)


def fill(client: Client, numbers: range) -> None:
    for number in numbers:
        client.must(Request.ADD_MEM_REG, region(number), (client.fd,))


def start(client: Client, ring_page: int) -> tuple[DriverRing, int]:
    """Ring 1, in page *ring_page*; the driver's side and the kick."""
    layout = RingLayout.at(ring_page * STEP, 64)
    driver = DriverRing(Scattered(client), layout)
    kick = client.eventfd()
    client.must(Request.SET_VRING_NUM, struct.pack("<II", 1, 64))
    addresses = payload.vring_addr(1, desc=USER + layout.desc, avail=USER + layout.avail, used=USER + layout.used)
    client.must(Request.SET_VRING_ADDR, addresses)
    client.must(Request.SET_VRING_KICK, struct.pack("<Q", 1), (kick,))
    client.must(Request.SET_VRING_ENABLE, struct.pack("<II", 1, 1))
    return driver, kick


def say(client: Client, driver: DriverRing, kick: int, page: int, count: int) -> None:
    """One chain from *page*, the *count*-th; comes back when it is used."""
    Scattered(client).write(page * STEP, b"word %d" % count)
    driver.add_chain([(page * STEP, 8)])
    driver.publish()
    os.eventfd_write(kick, 1)
    wait_used(driver, count)


def refused(client: Client) -> bool:
    """Whether the connection ends."""
    return client.answer() is None


def test_509_regions_are_taken_and_the_510th_is_not(client: Client) -> None:
    client.negotiate(REPLY_ACK | SLOTS)
    assert client.ask(Request.GET_MAX_MEM_SLOTS) == struct.pack("<Q", 509)
    fill(client, range(COUNT))
    client.must(Request.ADD_MEM_REG, region(0), (client.fd,))  # one that is there, once more
    client.send(Request.ADD_MEM_REG, region(COUNT), (client.fd,))
    assert refused(client)


def test_ring_and_data_in_the_last_of_all_regions_are_served(client: Client) -> None:
    client.negotiate(REPLY_ACK | SLOTS)
    fill(client, range(COUNT))
    driver, kick = start(client, COUNT - 1)
    for count, page in enumerate((0, 1, COUNT // 2, COUNT - 2), 1):
        say(client, driver, kick, page, count)


def test_regions_come_and_go_while_a_ring_runs(client: Client) -> None:
    client.negotiate(REPLY_ACK | SLOTS)
    fill(client, range(2))
    driver, kick = start(client, 0)
    for count in range(1, 30):
        client.must(Request.ADD_MEM_REG, region(count + 1), (client.fd,))
        say(client, driver, kick, count + 1, count)
        client.must(Request.REM_MEM_REG, region(count))
    assert client.queues()


def test_buffer_in_a_region_that_has_gone_is_refused_and_the_client_stays(client: Client) -> None:
    client.negotiate(REPLY_ACK | SLOTS)
    fill(client, range(20))
    driver, kick = start(client, 0)
    say(client, driver, kick, 19, 1)
    client.must(Request.REM_MEM_REG, region(19))
    err = client.eventfd()
    client.must(Request.SET_VRING_ERR, struct.pack("<Q", 1), (err,))
    driver.add_chain([(19 * STEP, 8)])
    driver.publish()
    os.eventfd_write(kick, 1)
    os.set_blocking(err, True)
    assert os.eventfd_read(err) == 1
    assert client.queues()


@pytest.mark.parametrize("number", [0, 7, 100])
@pytest.mark.parametrize("shift", [-PAGE + 1, 1, PAGE - 1])
def test_region_that_overlaps_another_is_refused(daemon: Daemon, client: Client, number: int, shift: int) -> None:
    client.negotiate(REPLY_ACK | SLOTS)
    fill(client, range(1, 102))
    gpa = (number + 1) * STEP + shift
    client.send(Request.ADD_MEM_REG, struct.pack("<5Q", 0, gpa, PAGE, 0, 0), (client.fd,))
    assert refused(client)
    assert serves(daemon)


def test_region_that_holds_all_others_is_refused(client: Client) -> None:
    client.negotiate(REPLY_ACK | SLOTS)
    fill(client, range(1, 30))
    client.send(Request.ADD_MEM_REG, struct.pack("<5Q", 0, 0, MEMORY, 0, 0), (client.fd,))
    assert refused(client)


@pytest.mark.parametrize("change", [0, 1, 2], ids=["gpa", "size", "user"])
def test_region_is_removed_by_all_that_it_was_added_by(client: Client, change: int) -> None:
    client.negotiate(REPLY_ACK | SLOTS)
    fill(client, range(10))
    fields = [5 * STEP, PAGE, USER + 5 * STEP]
    fields[change] += 1
    client.send(Request.REM_MEM_REG, struct.pack("<5Q", 0, *fields, 0))
    assert refused(client)


def test_table_still_has_eight_regions_at_most(client: Client) -> None:
    client.negotiate(REPLY_ACK | SLOTS)
    table = b"".join(payload.region(n * STEP, PAGE, n * STEP, n * PAGE) for n in range(9))
    client.send(Request.SET_MEM_TABLE, struct.pack("<II", 9, 0) + table, (client.fd,) * 8)
    assert refused(client)
