"""The capability list."""

import pytest

from tests.pci.parts import Probe, Setup


def test_without_capabilities_there_is_no_list() -> None:
    function = Probe()
    setup = Setup(function)
    assert setup.read(function, 0x06, 2) & 0x10 == 0
    assert setup.read(function, 0x34, 1) == 0


def test_first_capability_starts_at_0x40_and_sets_the_status_bit() -> None:
    function = Probe()
    assert function.add_capability(0x09, b"\x08\x01") == 0x40
    setup = Setup(function)
    assert setup.read(function, 0x06, 2) & 0x10
    assert setup.read(function, 0x40) == 0x0108_0009


def test_capabilities_are_linked_in_order_at_dwords() -> None:
    function = Probe()
    offsets = [function.add_capability(0x09, bytes(n)) for n in (2, 5, 14)]
    setup = Setup(function)
    assert offsets == [0x40, 0x44, 0x4C]
    walked = [setup.read(function, 0x34, 1)]
    walked += [setup.read(function, at + 1, 1) for at in offsets]
    assert walked == [0x40, 0x44, 0x4C, 0]


def test_capability_body_is_read_only_but_for_its_mask() -> None:
    function = Probe()
    at = function.add_capability(0x09, b"\x11\x22\x33\x44", writable=b"\x00\xff\x0f")
    setup = Setup(function)
    for i in range(6):
        setup.write(function, at + i, 0xFF, 1)
    assert [setup.read(function, at + i, 1) for i in range(6)] == [0x09, 0, 0x11, 0xFF, 0x3F, 0x44]


def test_capability_that_does_not_fit_raises_and_changes_nothing() -> None:
    function = Probe()
    function.add_capability(0x09, bytes(100))
    with pytest.raises(ValueError, match="does not fit"):
        function.add_capability(0x09, bytes(100))
    setup = Setup(function)
    assert setup.read(function, 0x41, 1) == 0


def test_last_capability_may_end_with_the_space() -> None:
    function = Probe()
    assert function.add_capability(0x09, bytes(0xC0 - 2)) == 0x40


def test_writable_mask_longer_than_the_body_raises() -> None:
    with pytest.raises(ValueError):
        Probe().add_capability(0x09, b"\0", writable=b"\xff\xff")
