"""A guest as its users have it, without one: acrn-dm is a shell script (``fake_dm``)."""

import sys
from pathlib import Path

import pytest

from acrn_dm.testing.guest.errors import CommandFailed, HarnessError, HarnessTimeout
from acrn_dm.testing.guest.guest import Guest, slots_for
from tests.patience import comes_true
from tests.testing.guest.fake_dm import running, starter


def test_guest_runs_commands_in_subshells(tmp_path: Path) -> None:
    with Guest(starter(tmp_path)) as guest:
        assert guest.run("word=kept; echo one; exit 0") == "one"
        assert guest.run('echo "$word".') == "."
        with pytest.raises(CommandFailed, match=r"^'exit 3' in the guest ended with 3: no output"):
            guest.run("exit 3")


def test_guest_is_told_of_by_acrn_dms_command_line(tmp_path: Path) -> None:
    with Guest(starter(tmp_path, "-s", "5,virtio-rnd")):
        words = (tmp_path / "arguments").read_text().split("\n")
    assert "--hypervisor kvm" in " ".join(words)
    assert "-s 2,virtio-console,stdio:shell" in " ".join(words)
    assert words[-4:] == ["-s", "5,virtio-rnd", "guest", ""]


def test_python_runs_the_lines_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acrn_dm.testing.guest.inner.python.PROGRAM", sys.executable)
    with Guest(starter(tmp_path)) as guest:
        assert guest.python("for word in ('a b', \"it's\"):\n    print(word)") == "a b\nit's"
        with pytest.raises(CommandFailed, match=r"(?s)^'1 / 0' in the guest ended with 1: .*ZeroDivisionError"):
            guest.python("1 / 0")


def test_guest_reboots(tmp_path: Path) -> None:
    with Guest(starter(tmp_path)) as guest:
        guest.run("echo one")
        guest.reboot()
        assert guest.run("echo two") == "two"


def test_acrn_dm_that_ends_badly_behind_a_good_block_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(HarnessError, match="acrn-dm ended with 2 when the guest powered off: device broke"),
        Guest(starter(tmp_path, AT_END="echo device broke >&2; exit 2")),
    ):
        pass


def test_block_that_fails_ends_acrn_dm_and_keeps_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Guest(starter(tmp_path, AT_END="exit 2")):
        1 / 0  # noqa: B018
    assert comes_true(lambda: not running(tmp_path))


def test_acrn_dm_that_refuses_says_why(tmp_path: Path) -> None:
    boot = starter(tmp_path, FAKE="echo there is no device >&2; exit 78")
    with pytest.raises(HarnessError, match=r"acrn-dm ended with 78\n.*\nacrn-dm said last: there is no device"):
        boot()
    assert comes_true(lambda: not running(tmp_path))


def test_guest_that_does_not_come_up_shows_its_console_and_is_ended(tmp_path: Path) -> None:
    words = f"echo Kernel panic > {tmp_path / 'serial'}; echo warned >&2; sleep 1000"
    boot = starter(tmp_path, timeout=1.0, FAKE=words)
    last = r"did not come up within 1 s: \nits kernel said last: Kernel panic\n\nacrn-dm said last: warned"
    with pytest.raises(HarnessTimeout, match=last):
        boot()
    assert comes_true(lambda: not running(tmp_path))


def test_guest_is_used_as_a_context(tmp_path: Path) -> None:
    guest = Guest(starter(tmp_path))
    with pytest.raises(HarnessError, match=r"with \.\.\. as guest"):
        guest.run("true")
    with guest:
        assert guest.run("echo up") == "up"
    with pytest.raises(HarnessError, match="not up"):
        guest.run("true")


@pytest.mark.parametrize(
    ("arguments", "slots"),
    [
        ([], ["3", "4"]),
        (["-s", "3,virtio-rnd"], ["4", "5"]),
        (["-s", "0:3:0,virtio-rnd"], ["4", "5"]),
        (["--pci_slot", "4:1,x", "-m", "3"], ["3", "5"]),
        (["--pci_slot=3,x"], ["4", "5"]),
    ],
)
def test_devices_have_the_first_slots_that_are_free(arguments: list[str], slots: list[str]) -> None:
    assert slots_for(["a,b=1", "c"], arguments) == ["-s", f"{slots[0]},a,b=1", "-s", f"{slots[1]},c"]
