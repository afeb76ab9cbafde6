"""A guest whose devices are served, without one: QEMU and the process that serves are shell scripts (``fake_dm``)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from acrn_dm.testing.guest.errors import CommandFailed, HarnessError, HarnessTimeout
from acrn_dm.testing.guest.guest import Guest
from acrn_dm.testing.guest.images.initramfs import busybox
from acrn_dm.testing.guest.served.shell import ServedShell
from tests.patience import comes_true
from tests.testing.guest.fake_dm import KERNEL, PROGRAM, running

SERVER = """
printf '%s\\n' "$@" > "$0/served"
trap 'echo asked to end >&2; exit ${STATUS:-0}' TERM
eval "$SERVER"
for word; do case $word in --socket-path=*) touch "${word#*=}" ;; esac; done
while :; do sleep 0.05; done
"""


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], ServedShell]]:
    """What makes what boots a guest that is none, with *devices* and variables of both scripts."""

    def make(*devices: str, timeout: float = 10.0, **environment: str) -> Callable[[], ServedShell]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return lambda: ServedShell(
            KERNEL,
            tmp_path,
            devices,
            initramfs=tmp_path / "initramfs",
            qemu=[str(busybox()), "sh", "-c", PROGRAM, str(tmp_path)],
            program=[str(busybox()), "sh", "-c", SERVER, str(tmp_path)],
            timeout=timeout,
        )

    return make


Starter = Callable[..., Callable[[], ServedShell]]


def sockets(words: str) -> list[str]:
    """The paths in a file of arguments."""
    return [word.partition("=")[2] for word in words.split("\n") if word.startswith("--socket-path=")]


def test_guest_obeys_and_its_devices_are_served_at_sockets_that_go_with_it(starter: Starter, tmp_path: Path) -> None:
    with Guest(starter("virtio-dice,sides=6", "edu")) as guest:
        assert guest.run("echo one") == "one"
        with pytest.raises(CommandFailed, match="ended with 3"):
            guest.run("exit 3")
        guest.reboot()
        assert guest.run("echo two") == "two"
        served = (tmp_path / "served").read_text()
        assert served.split("\n")[:3] == ["virtio-dice,sides=6", "edu", "--tell-writes"]
        assert all(Path(path).exists() for path in sockets(served))
        words = (tmp_path / "arguments").read_text()
    assert len(sockets(served)) == words.count("vfio-user-pci") == 2
    assert all(f'"path": "{path}"' in words for path in sockets(served))
    assert not any(Path(path).parent.exists() for path in sockets(served))
    assert running(tmp_path) == []


def test_guest_without_devices_needs_no_process(starter: Starter, tmp_path: Path) -> None:
    with Guest(starter()) as guest:
        assert (guest.run("echo up"), guest.log()) == ("up", "")
    assert not (tmp_path / "served").exists()


def test_log_is_what_acrn_dm_says_and_console_what_the_kernel_does(starter: Starter, tmp_path: Path) -> None:
    boot = starter("edu", SERVER="echo warned >&2", FAKE=f"printf 'Linux\\r\\n' > {tmp_path / 'serial'}")
    with Guest(boot) as guest:
        assert comes_true(lambda: guest.log() == "warned\n")
        assert guest.console() == "Linux\n"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"STATUS": "2"}, "(?s)^acrn-dm ended with 2 when the guest powered off: .*asked to end"),
        ({"AT_END": "echo broke >&2; exit 3"}, "^no good end when the guest powered off: QEMU ended with 3: broke"),
    ],
)
def test_bad_end_of_either_behind_a_good_block_is_an_error(
    starter: Starter, tmp_path: Path, how: dict[str, str], said: str
) -> None:
    with pytest.raises(HarnessError, match=said), Guest(starter("edu", **how)):
        pass
    assert comes_true(lambda: not running(tmp_path))


def test_block_that_fails_ends_both_and_keeps_its_own_error(starter: Starter, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Guest(starter("edu", STATUS="2")):
        1 / 0  # noqa: B018
    assert comes_true(lambda: not running(tmp_path))


def test_device_that_is_refused_says_why(starter: Starter, tmp_path: Path) -> None:
    boot = starter("edu", SERVER="echo there is no device >&2; exit 78")
    with pytest.raises(HarnessError, match=r"^acrn-dm ended with 78: there is no device"):
        boot()
    assert comes_true(lambda: not running(tmp_path))


def test_qemu_that_ends_and_guest_that_does_not_come_up_say_what_was_said_last(
    starter: Starter, tmp_path: Path
) -> None:
    with pytest.raises(HarnessError, match=r"QEMU ended with 1\n.*\nQEMU said last: no memory\n\nacrn-dm said last: "):
        starter("edu", FAKE="echo no memory >&2; exit 1")()
    late = starter("edu", timeout=1.0, FAKE=f"echo Kernel panic > {tmp_path / 'serial'}; sleep 1000")
    with pytest.raises(HarnessTimeout, match=r"did not come up within 1 s: \nits kernel said last: Kernel panic"):
        late()
    assert comes_true(lambda: not running(tmp_path))
