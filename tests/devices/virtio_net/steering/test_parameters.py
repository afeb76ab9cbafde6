"""acrn_dm.devices.virtio_net.steering.parameters: commands that say what they must, and such as mean nothing."""

import pytest

from acrn_dm.devices.virtio_net.steering.parameters import parse_hashes, parse_steering
from acrn_dm.testing.conformance.kinds.net.toeplitz import KEY, hash_config, rss_config

PAIRS = 4


def test_table_key_and_pairs_are_those_of_the_command() -> None:
    found = parse_steering(rss_config(0x1FF, [0, 2, 1, 0], 1, 2), PAIRS)
    assert found is not None
    assert (found.pairs, found.hashes.types, found.hashes.key, found.hashes.steers) == (3, 0x1FF, KEY, True)
    assert [found.hashes.pair(value, 1) for value in range(5)] == [0, 2, 1, 0, 0]
    assert found.hashes.pair(2, 0) == 1


def test_longest_table_and_no_key_where_nothing_is_hashed() -> None:
    assert parse_steering(rss_config(0, [3] * 128, 0, 4, b""), PAIRS) is not None
    assert parse_hashes(hash_config(0, b"")) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        rss_config(1, [0], 0, 1)[:-1],
        rss_config(1, [0], 0, 1) + b"\0",
        rss_config(1, [0] * 3, 0, 1),
        rss_config(1, [0] * 256, 0, 1),
        rss_config(1, [0, PAIRS], 0, 1),
        rss_config(1, [0x8000], 0, 1),
        rss_config(1, [0], PAIRS, 1),
        rss_config(1, [0], 0, 0),
        rss_config(1, [0], 0, PAIRS + 1),
        rss_config(0x200, [0], 0, 1),
        rss_config(1, [0], 0, 1, b""),
        rss_config(1, [0], 0, 1, bytes(41)),
        rss_config(1, [0] * 64, 0, 1)[:100],
    ],
)
def test_steering_that_means_nothing_is_refused(data: bytes) -> None:
    assert parse_steering(data, PAIRS) is None


@pytest.mark.parametrize(
    "data", [b"", hash_config(1)[:-1], hash_config(1, b""), hash_config(0x200), hash_config(1, bytes(41))]
)
def test_hashes_that_mean_nothing_are_refused(data: bytes) -> None:
    assert parse_hashes(data) is None
