"""Servers that can't be what they say: the start fails with one line that says why, and nothing is left open."""

import os
import struct
from pathlib import Path

import attrs
import pytest

from acrn_dm.base.errors import AcrnDmError, ConfigError, HostError
from acrn_dm.devices.vfio_user import link
from acrn_dm.testing import SimMachine
from tests.devices.vfio_user.fake_server import (
    DMA_MAP,
    GET_IRQ,
    GET_REGION,
    INFO,
    READ,
    RESET,
    VERSION,
    Answer,
    FakeServer,
    config_space,
    msix,
)
from tests.devices.vfio_user.hostile_answers import (
    ends,
    fails,
    floods,
    half,
    header,
    interrupts,
    region,
    says,
    short,
    silent,
    version,
)
from tests.patience import comes_true

SLOT = 6
GOOD_INFO = struct.pack("<IIII", 16, 3, 9, 5)
PM = bytes([1, 0, 0, 0, 0, 0, 0, 0])


@attrs.frozen
class Row:
    """A fault, and words of the line that tells of it."""

    words: str
    answers: dict[int, Answer] = attrs.field(factory=dict)
    server: dict[str, object] = attrs.field(factory=dict)


def shaped(words: str, sizes: dict[int, int] | None = None, **config: object) -> Row:
    """A configuration space that can't be."""
    made: dict[str, object] = {"config": config_space(**config)}  # type: ignore[arg-type]
    if sizes is not None:
        made["sizes"] = sizes
    return Row(words, server=made)


ROWS = {
    "another version": Row("its version is 1.0, expected 0.0", {VERSION: version(b"{}\0", 1)}),
    "a later minor version": Row("its version is 0.1", {VERSION: version(b"{}\0", 0, 1)}),
    "version that is short": Row("VERSION of 2 bytes", {VERSION: says(b"\0\0")}),
    "no json": Row("JSON can't be read", {VERSION: version(b"{\0")}),
    "json without an end": Row("JSON has no end", {VERSION: version(b"{}")}),
    "a list": Row("capabilities are no object", {VERSION: version(b"[]\0")}),
    "no bytes in a message": Row("max_data_xfer_size is 0", server={"capabilities": {"max_data_xfer_size": 0}}),
    "descriptors by words": Row("max_msg_fds is 'many'", server={"capabilities": {"max_msg_fds": "many"}}),
    "pages of no size": Row("pgsizes is -1", server={"capabilities": {"pgsizes": -1}}),
    "pages larger than the guest": Row("are larger than", server={"capabilities": {"pgsizes": 1 << 30}}),
    "the end instead of an answer": Row("the connection was closed", {INFO: ends}),
    "half a header": Row("the connection was closed", {INFO: half}),
    "an answer that announces 4 GiB": Row("announces 4294967295 bytes", {INFO: header(INFO, 2**32 - 1)}),
    "an answer shorter than its header": Row("announces 3 bytes", {INFO: header(INFO, 3)}),
    "unknown flags": Row("with flags 0x8001", {INFO: header(INFO, flags=0x8001)}),
    "another number": Row("with another number", {INFO: header(INFO, 32, later=1, body=bytes(16))}),
    "another command": Row("was answered by DEVICE_RESET", {INFO: header(RESET)}),
    "an error": Row("DEVICE_GET_INFO was refused", {INFO: fails(5)}),
    "an error without a number": Row("was refused", {INFO: header(INFO, flags=0x21)}),
    "silence": Row("DEVICE_GET_INFO was not answered within", {INFO: silent}),
    "questions without an end": Row("DEVICE_GET_INFO was not answered within|does not read", {INFO: floods}),
    "too few bytes": Row("answered with 8 bytes, expected 16", {INFO: says(bytes(8))}),
    "too many bytes": Row("answered with 4000 bytes, expected 16", {INFO: says(bytes(4000))}),
    "no PCI device": Row("it is no PCI device", {INFO: says(struct.pack("<IIII", 16, 1, 9, 5))}),
    "too few regions": Row("it has 2 regions", {INFO: says(struct.pack("<IIII", 16, 3, 2, 5))}),
    "descriptors where there are none": Row("answered with 1 descriptors", {INFO: says(GOOD_INFO, 1)}),
    "descriptors that are too many": Row("more than 16", {GET_REGION: says(bytes(32), 17)}),
    "another region": Row("of region 0 told of region 3", {GET_REGION: region(0, index=3)}),
    "a configuration space of 128 bytes": Row("has 128 bytes, expected 256 or 4096", {GET_REGION: region(7, size=128)}),
    "a configuration space that is endless": Row("expected 256 or 4096", {GET_REGION: region(7, size=2**64 - 1)}),
    "a configuration space that can't be read": Row("expected 256 or 4096", {GET_REGION: region(7, size=256, flags=0)}),
    "a configuration space that is short": Row("brought other ones", {READ: short}),
    "bytes from elsewhere": Row("brought other ones", {READ: says(struct.pack("<QII", 4, 7, 256) + bytes(256))}),
    "more interrupts than there are": Row("2049 interrupts of kind 2", {GET_IRQ: interrupts(2049, of=2)}),
    "two pins": Row("2 interrupts of kind 0", {GET_IRQ: interrupts(2)}),
    "interrupts of another kind": Row("of kind 0 told of kind 1", {GET_IRQ: interrupts(1, index=1)}),
    "a 32-bit BAR of 1 TiB": shaped("BAR 0 (MEM32) has 0x10000000000 bytes", {0: 1 << 40}),
    "a 64-bit BAR of all there is": shaped("BAR 0 (MEM64) has 0xffffffffffffffff bytes", {0: 2**64 - 1}, bars={0: 4}),
    "ports without an end": shaped("BAR 0 (IO) has 0x10000 bytes", {0: 1 << 16}, bars={0: 1}),
    "a 64-bit BAR that does not end": shaped("BAR 5 is the other half", {5: 4096}, bars={5: 4}),
    "two BARs in one": shaped("BAR 1 is the other half", {0: 4096, 1: 4096}, bars={0: 4, 1: 0}),
    "a BAR that has no room": shaped("no room for 0x80000000 bytes", {0: 1 << 31}),
    "capabilities that come round": shaped("comes back to 0x40", c40=PM, c50=bytes([9, 0x40, 4, 0])),
    "a capability that leads to itself": shaped("comes back to 0x40", c40=bytes([9, 0x40, 4, 0])),
    "capabilities in the header": shaped("leads to 0x10", c40=bytes([9, 0x10, 4, 0])),
    "MSI-X behind the end": shaped("MSI-X at 0xf8 does not end", cf8=bytes([0x11, 0, 0, 0, 1, 0, 0, 0])),
    "MSI behind the end": shaped("MSI at 0xf0 does not end", cf0=bytes([5, 0, 0x80, 1])),
    "MSI of 64 vectors": shaped("number of vectors is 6", c40=bytes([5, 0, 0x0C, 0])),
    "Express behind the end": shaped("0x10 at 0xf0 does not end", cf0=bytes([0x10, 0, 2, 0])),
    "a table in no BAR": shaped("table (0x40 bytes at 0x0) is not in BAR 3", c40=msix(table=3)),
    "a table in BAR 7": shaped("is not in BAR 7", c40=msix(table=7)),
    "a table behind its BAR's end": shaped("is not in BAR 1, which has 0x1000", c40=msix(table=0xFF1)),
    "pending bits far away": shaped("bits (0x8 bytes at 0xfffffff8) is not in BAR 1", c40=msix(pba=0xFFFF_FFF9)),
    "pending bits in the table": shaped("overlap", c40=msix(pba=0x11)),
    "a capability in MSI-X": shaped("capabilities at 0x40 and 0x44 overlap", c40=msix(), c44=PM),
    "memory that it does not take": Row("DMA_MAP was refused", {DMA_MAP: fails(12)}),
    "a reset that fails": Row("DEVICE_RESET was refused", {RESET: fails(5)}),
    "an end while memory is shared": Row("the connection was closed", {DMA_MAP: ends}),
}


@pytest.mark.parametrize("name", ROWS)
def test_server_that_can_not_be_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "ANSWER_S", 0.3 if "silence" in name or "without an end" in name else 20.0)
    monkeypatch.setattr("acrn_dm.backends.wire.vfio_user.channel.SEND_MS", 500 if "without an end" in name else 4000)
    row = ROWS[name]
    before = len(os.listdir("/proc/self/fd"))
    with FakeServer(tmp_path / "s", row.answers, **row.server):  # type: ignore[arg-type]
        machine = SimMachine()
        machine.add("vfio-user", f"socket={tmp_path / 's'}", slot=SLOT)
        with pytest.raises(AcrnDmError) as caught:
            machine.start()
        machine.close()
    line = str(caught.value)
    assert isinstance(caught.value, HostError | ConfigError)
    assert any(words in line for words in row.words.split("|")), line
    assert "vfio-user" in line
    assert "\n" not in line
    assert comes_true(lambda: len(os.listdir("/proc/self/fd")) <= before)
