"""``acrn-dm --hypervisor replay`` as a user starts it, with real devices."""

import struct
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

OFF, FAILURE, USAGE, CONFIG = 0, 1, 64, 78

# A request to read sector 0, by a legacy driver of the disk in slot 3: its I/O BAR is at 0x2000, its line is 16.
READ_SECTOR_0 = """
out 0xcf8 4 0x80001800
in  0xcfc 4 0x10011af4
out 0xcf8 4 0x80001804
out 0xcfc 2 7                                   # I/O, memory, bus master
out 0x2012 1 3                                  # ACKNOWLEDGE, DRIVER
in  0x200c 2 0x100                              # entries of the queue
out 0x2008 4 0x4000                             # its page
put 0x4000000 00000104000000001000000001000100  # the header: 16 bytes, next 1
put 0x4000010 00100104000000000002000003000200  # the data: 512 bytes to write, next 2
put 0x4000020 00200104000000000100000002000000  # the status: 1 byte to write
put 0x4010000 00000000000000000000000000000000  # VIRTIO_BLK_T_IN, sector 0
put 0x4012000 ff
put 0x4001000 000001000000                      # available: chain 0
out 0x2012 1 7                                  # DRIVER_OK
out 0x2010 2 0                                  # kick
line 16 1
in  0x2013 1 1/1                                # ISR
line 16 0
get 0x4002002 10 01000000000001020000           # used: chain 0, 513 bytes; the flags before it come and go
get 0x4012000 1 00
get 0x4011000 12 68656c6c6f20736563746f72
"""


def kernel() -> bytes:
    """A bzImage with nothing to run: it is loaded, and the script is played instead."""
    data = bytearray(5 * 512)
    data[0x1F1] = 4  # sectors behind the first
    struct.pack_into("<HBB4sH", data, 0x1FE, 0xAA55, 0xEB, 0x6A, b"HdrS", 0x020F)
    data[0x211] = 1  # loaded high
    struct.pack_into("<I", data, 0x214, 1 << 20)
    struct.pack_into("<IIB", data, 0x22C, 0x7FFF_FFFF, 2 << 20, 1)
    struct.pack_into("<I", data, 0x238, 2047)
    struct.pack_into("<QI", data, 0x258, 16 << 20, 8 << 20)
    return bytes(data) + b"\xf4" * 4096


@attrs.frozen
class Machine:
    folder: Path

    def __call__(self, script: str | None, *args: str) -> tuple[int, str]:
        """Play *script*; return the exit code and stderr."""
        command = [sys.executable, "-m", "acrn_dm", "-m", "128M", "-k", "kernel", "--hypervisor", "replay", *args]
        command += ["--manager-directory", "none", "-s", "0,hostbridge", "-s", "3,virtio-blk,disk"]
        if script is not None:
            (self.folder / "s.txt").write_text(script)
            command += ["--script", "s.txt"]
        done = subprocess.run(
            [*command, "vm"], cwd=self.folder, capture_output=True, text=True, timeout=100, check=False
        )
        return done.returncode, done.stderr


@pytest.fixture
def play(tmp_path: Path) -> Machine:
    (tmp_path / "kernel").write_bytes(kernel())
    (tmp_path / "disk").write_bytes(b"hello sector".ljust(65536, b"."))
    return Machine(tmp_path)


def test_a_drivers_request_is_played_against_the_disk(play: Machine) -> None:
    assert play(READ_SECTOR_0) == (OFF, "")


def test_other_bytes_than_expected_are_the_machines_failure(play: Machine) -> None:
    code, err = play(READ_SECTOR_0.replace("68656c6c6f", "68656c6c70"))
    assert code == FAILURE
    assert "s.txt:22: get 0x4011000 12 68656c6c7020736563746f72: it is 68656c6c6f20736563746f72" in err


def test_transcript_is_a_script_that_compares_what_was_read(play: Machine) -> None:
    assert play("out 0xcf8 4 0x80000000\nin 0xcfc 4\nget 0xe0000 4", "--transcript", "t.txt") == (OFF, "")
    transcript = (play.folder / "t.txt").read_text()
    assert transcript == "out 0xcf8 4 0x80000000\nin 0xcfc 4 0x12751275\nget 0xe0000 4 00000000\n"
    assert play(transcript) == (OFF, "")
    assert play(transcript.replace("0x1275", "0x1276"))[0] == FAILURE


@pytest.mark.parametrize("value", ["0x6", "0xe"], ids=["in place", "full"])
def test_script_goes_on_after_a_reset(play: Machine, value: str) -> None:
    command = "out 0xcf8 4 0x80001804\n"
    script = (
        f"{command}out 0xcfc 2 0x407\nin 0xcfc 2 0x407\nout 0xcf9 1 {value}\nrestart\n{command}in 0xcfc 2 0/0x400\n"
    )
    assert play(script) == (OFF, "")


def test_guest_that_is_forced_off_while_the_script_waits_ends(play: Machine) -> None:
    assert play("out 0x404 2 0x3400\nrestart") == (OFF, "")


@pytest.mark.parametrize(
    ("script", "args", "says"),
    [
        (None, (), "--script: the hypervisor replay needs one"),
        (None, ("--script", "absent", "--dry-run"), "--script: 'absent': No such file or directory"),
        ("in 0x60 1\nin 0x60 3", (), "s.txt:2: no access has 3 bytes; expected 1, 2, 4"),
        ("in 0x60 1\nin 0x60 3", ("--dry-run",), "s.txt:2: no access has 3 bytes; expected 1, 2, 4"),
        ("in 0x60 1", ("--cpus", "2"), "--cpus: 2: the hypervisor replay has one processor"),
    ],
    ids=["none", "absent", "malformed", "malformed in a dry run", "two processors"],
)
def test_what_can_not_be_played_is_said_before_the_start(
    play: Machine, script: str | None, args: tuple[str, ...], says: str
) -> None:
    code, err = play(script, *args)
    assert (code, says in err) == (CONFIG, True), err


def test_script_may_stand_in_a_file_of_options(play: Machine) -> None:
    (play.folder / "vm.toml").write_text('script = "other.txt"\ntranscript = "t.txt"\n')
    (play.folder / "other.txt").write_text("in 0x404 2 0")
    assert play(None, "--config", "vm.toml") == (OFF, "")
    assert (play.folder / "t.txt").read_text() == "in 0x404 2 0x0/0xffff\n"
