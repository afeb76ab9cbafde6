"""The leaky buckets, in time that the test makes up: when each request of a driver that never rests may begin."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acrn_dm.devices.virtio_blk.native.throttle._throttle import BlkThrottle
from acrn_dm.devices.virtio_blk.rates import read_rates

S = 1_000_000_000


def throttle(text: str) -> BlkThrottle:
    options = read_rates(text, "disk")
    made = BlkThrottle()
    made.set(options.rates, options.iops_size)
    return made


def begins(to: BlkThrottle, n: int, n_bytes: int = 0, *, write: bool = False, now: int = 0) -> Iterator[float]:
    """When each of *n* requests begins, in seconds; the next one comes as soon as one has begun."""
    for _ in range(n):
        now = max(now, to.reserve(write, n_bytes, now))
        yield now / S


def within(times: list[float], start: float, end: float) -> int:
    return sum(start <= time < end for time in times)


def test_a_tenth_of_a_second_passes_at_once_and_the_rest_at_the_rate() -> None:
    times = list(begins(throttle("iops=100"), 1011))
    assert within(times, 0, 0.001) == 11
    assert times[-1] == pytest.approx(10.0)
    assert times[500] - times[400] == pytest.approx(1.0)


def test_burst_lasts_as_long_as_it_may_and_then_the_rate_holds() -> None:
    """At 1000 a second a bucket of 1000 * 9 that leaks 100 a second is full after 10 s."""
    times = list(begins(throttle("iops=100,iops_max=1000,iops_max_length=9"), 12000))
    assert within(times, 1, 2) == pytest.approx(1000, abs=1)
    assert within(times, 9, 9.8) == pytest.approx(800, abs=1)
    assert within(times, 11, 21) == pytest.approx(1000, abs=1)


def test_burst_of_a_second_passes_at_once() -> None:
    times = list(begins(throttle("iops=100,iops_max=1000"), 1201))
    assert within(times, 0, 0.001) == 1001
    assert times[-1] == pytest.approx(2.0)


def test_large_request_passes_and_the_next_one_waits_for_it() -> None:
    times = list(begins(throttle("bps=1M"), 3, 8 << 20))
    assert times == [0, pytest.approx(7.9), pytest.approx(15.9)]


@pytest.mark.parametrize(("limit", "write"), [("iops_rd=1", False), ("iops_wr=1", True), ("bps_rd=1", False)])
def test_limit_of_one_direction_leaves_the_other_alone(limit: str, write: bool) -> None:
    limited = throttle(limit)
    assert list(begins(limited, 2, 512, write=write))[1] > 0.5
    assert list(begins(limited, 50, 512, write=not write)) == [0] * 50


def test_limit_of_both_directions_is_shared() -> None:
    limited = throttle("iops=1")
    list(begins(limited, 1, write=True))
    assert list(begins(limited, 1, write=False)) == [pytest.approx(0.9)]


def test_what_moves_no_bytes_does_not_wait_for_those_of_others() -> None:
    limited = throttle("bps=1")
    list(begins(limited, 1, 1 << 30, write=True))
    assert list(begins(limited, 20, 0, write=True)) == [0] * 20


def test_large_requests_count_as_several_operations() -> None:
    assert list(begins(throttle("iops=10,iops_size=4k"), 3, 40960)) == [0, pytest.approx(0.9), pytest.approx(1.9)]
    assert list(begins(throttle("iops=10,iops_size=4k"), 3, 512))[2] == pytest.approx(0.1)


def test_new_limits_begin_with_empty_buckets() -> None:
    limited = throttle("bps=1")
    list(begins(limited, 1, 1 << 30))
    limited.set(read_rates("bps=1M", "disk").rates, 0)
    assert list(begins(limited, 1, 512)) == [0]


def test_no_limits_are_not_active() -> None:
    limited = throttle("iops=1")
    assert limited.active
    limited.set(read_rates("", "disk").rates, 0)
    assert not limited.active


def test_what_is_given_back_does_not_count() -> None:
    limited = throttle("bps=1k")
    assert list(begins(limited, 1, 1 << 20)) == [0]
    assert limited.reserve(False, 1 << 20, 0) > 1000 * S
    limited.give_back(False, 1 << 20)
    limited.give_back(False, 1 << 20)
    assert list(begins(limited, 1, 512)) == [0]


def test_clock_that_another_thread_has_read_earlier_changes_nothing() -> None:
    limited = throttle("iops=100")
    list(begins(limited, 10, now=5 * S))
    assert limited.reserve(False, 0, 3 * S) == 3 * S
    assert limited.reserve(False, 0, 5 * S) == pytest.approx(5.01 * S)


def test_wait_of_a_hostile_length_is_a_time_that_the_clock_has() -> None:
    limited = throttle("bps=1")
    for _ in range(8):
        due = limited.reserve(True, (1 << 64) - 1, 0)
    assert due == 10**18


@given(
    rate=st.integers(1, 10**6),
    factor=st.integers(1, 50),
    seconds=st.integers(1, 30),
    requests=st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, S)), min_size=1, max_size=40),
)
def test_no_more_passes_than_bucket_and_rate_have(
    rate: int, factor: int, seconds: int, requests: list[tuple[int, int]]
) -> None:
    """Whatever comes when: up to each moment what has begun before the last request fits the bucket and its leak."""
    limited = throttle(f"bps={rate},bps_max={rate * factor},bps_max_length={seconds}")
    now, moved = 0, 0
    for n_bytes, pause in requests:
        now = max(now + pause, limited.reserve(True, n_bytes, now + pause))
        assert moved <= rate * factor * seconds + rate * now / S + 1e-3
        moved += n_bytes
