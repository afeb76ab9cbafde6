"""Packet headers judged in C against ``request``: the same answer to any header."""

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acrn_dm.devices.virtio_net import request
from acrn_dm.devices.virtio_net.native.frames import _headers as native

U8 = st.one_of(st.sampled_from([0, 1, 2, 3, 4, 0x80, 0x81, 0x84]), st.integers(0, 255))
U16 = st.one_of(st.sampled_from([0, 1, 14, 34, 60, 0xFFFD, 0xFFFE, 0xFFFF]), st.integers(0, 0xFFFF))
FIELDS = st.tuples(U8, U8, U16, U16, U16, U16).map(lambda fields: struct.pack("<BBHHHH", *fields))
BITS = [1 << bit for bit in range(64) if request.OFFLOADS >> bit & 1]
FEATURES = st.one_of(st.just(request.OFFLOADS), st.sets(st.sampled_from(BITS)).map(sum))
LENGTHS = st.one_of(st.integers(request.MIN_FRAME, 200), st.sampled_from([0xFFFF, 0x10000, request.MAX_FRAME]))


@settings(max_examples=300, deadline=None)
@given(fields=FIELDS, rest=st.sampled_from([b"", b"\0\0", b"\1\2"]), length=LENGTHS, features=FEATURES)
def test_header_of_the_guests_is_judged_as_the_reference_does(
    fields: bytes, rest: bytes, length: int, features: int
) -> None:
    expected = request.transmit_header(fields + rest, length, features)
    assert native.transmit_header(fields + rest, length, features) == expected


@settings(max_examples=300, deadline=None)
@given(fields=FIELDS, features=FEATURES)
def test_header_of_the_interfaces_is_judged_as_the_reference_does(fields: bytes, features: int) -> None:
    assert native.receive_flags(fields, features) == request.receive_flags(fields, features)


@pytest.mark.parametrize("missing", [0, *BITS])
def test_each_offload_needs_its_feature_as_in_the_reference(missing: int) -> None:
    features = request.OFFLOADS & ~missing
    for flags, gso in itertools.product((0, 1, 2, 3), (0, 1, 3, 4, 5, 0x80, 0x81, 0x84)):
        fields = struct.pack("<BBHHHH", flags, gso, 54, 1448, 34, 16)
        assert native.transmit_header(fields, 60, features) == request.transmit_header(fields, 60, features)
        assert native.receive_flags(fields, features) == request.receive_flags(fields, features)
