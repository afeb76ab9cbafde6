"""What guests of one run share, without booting any: see ``fake_dm``."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from acrn_dm.testing.guest import guests as module
from acrn_dm.testing.guest import places
from acrn_dm.testing.guest.errors import HarnessTimeout, HarnessUnavailable
from acrn_dm.testing.guest.guests import Guests, environment
from acrn_dm.testing.guest.host import Host
from tests.testing.guest.fake_dm import KERNEL, starter


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(places.HOME, str(tmp_path))
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each guest was to be started with; it is a stand-in, with an image that is none."""
    calls: list[dict[str, Any]] = []

    def start(place: object, **options: Any) -> object:
        calls.append({"place": place, **options})
        return starter(options["scratch"])()

    monkeypatch.setattr(module, "GuestShell", start)
    monkeypatch.setattr(module, "guest_initramfs", lambda kernel, **options: options)
    monkeypatch.setattr(module.python, "archive", lambda: b"python")
    monkeypatch.setattr(module, "debian_kernel", lambda: KERNEL)
    return calls


def test_guest_gets_what_was_asked_for(started: list[dict[str, Any]]) -> None:
    place = Host()
    with Guests(place=place) as guests:
        asked = guests("-m", "512M", devices=["virtio-dice"], modules=["evdev"], files={"/a": b"b"}, append="quiet")
        with asked as guest:
            assert guest.run("echo up") == "up"
    (call,) = started
    assert (call["place"], call["append"], call["kernel"]) == (place, "quiet", KERNEL)
    assert call["arguments"] == ["-m", "512M", "-s", "3,virtio-dice"]
    image = call["initramfs"]
    assert (image["modules"][-1], image["files"], image["behind"]) == ("evdev", {"/a": b"b"}, b"python")


def test_guests_have_ports_and_folders_of_their_own_that_go_with_the_run(started: list[dict[str, Any]]) -> None:
    with Guests(place=Host()) as guests:
        with guests(), guests():
            pass
        scratch = guests.scratch
        assert scratch.exists()
    first, second = started
    assert first["scratch"] != second["scratch"]
    assert first["port"] != second["port"]
    assert not scratch.exists()


def test_run_without_guests_leaves_nothing(home: Path) -> None:
    with Guests(place=Host()):
        pass
    assert list(home.iterdir()) == []


def test_acrn_dm_runs_on_this_host_where_kvm_is_fit(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.probe, "probe", lambda: None)
    monkeypatch.setattr(module.needs, "missing", lambda emulated: str(emulated) if emulated else None)
    with Guests() as guests, guests():
        pass
    assert isinstance(started[0]["place"], Host)


class Outer:
    """An outer VM that is this host, and may hang."""

    hangs = False
    made: list["Outer"] = []

    def __init__(self, name: str, shares: list[Path]) -> None:
        self.name, self.shares, self.closed, self.restarts = name, shares, False, 0
        self.made.append(self)

    def __enter__(self) -> "Outer":
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def alive(self) -> bool:
        return not self.hangs or bool(self.restarts)

    def restart(self) -> None:
        self.restarts += 1


@pytest.fixture
def outer(monkeypatch: pytest.MonkeyPatch) -> type[Outer]:
    """A host without a KVM that is fit, and nothing missing."""
    monkeypatch.setattr(module, "OuterVm", Outer)
    monkeypatch.setattr(module.probe, "probe", lambda: "no KVM")
    monkeypatch.setattr(module.needs, "missing", lambda emulated: None if emulated else "KVM")
    monkeypatch.setattr(Outer, "made", [])
    return Outer


def test_one_outer_vm_serves_all_guests_and_ends_with_the_run(
    started: list[dict[str, Any]], outer: type[Outer], tmp_path: Path
) -> None:
    with Guests(shares=[tmp_path]) as guests:
        assert outer.made == []
        for _ in range(2):
            with guests():
                pass
        (vm,) = outer.made
        assert (vm.shares, vm.closed) == ([tmp_path], False)
    assert vm.closed
    assert [call["place"] for call in started] == [vm, vm]


@pytest.mark.parametrize("hangs", [True, False])
def test_guest_is_started_again_where_the_outer_vm_has_hung(
    outer: type[Outer], started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(outer, "hangs", hangs)
    start = module.GuestShell

    def late(place: Outer, **options: Any) -> object:
        if not place.restarts:
            raise HarnessTimeout("late")
        return start(place, **options)

    monkeypatch.setattr(module, "GuestShell", late)
    with Guests() as guests:
        if hangs:
            with guests():
                pass
        else:
            with pytest.raises(HarnessTimeout):
                guests().__enter__()
        assert outer.made[0].restarts == hangs


def test_missing_program_is_the_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.needs, "missing", lambda emulated: "no guest without busybox")
    reasons: list[str] = []
    with Guests(skip=reasons.append) as guests, pytest.raises(HarnessUnavailable, match="no guest without busybox"):
        guests().__enter__()
    assert reasons == ["no guest without busybox"]


def test_kernel_that_is_not_to_be_had_is_asked_for_once(
    outer: type[Outer], monkeypatch: pytest.MonkeyPatch, started: list[dict[str, Any]]
) -> None:
    asked = []

    def fetch() -> None:
        asked.append(1)
        raise HarnessUnavailable("no Debian kernel")

    monkeypatch.setattr(module, "debian_kernel", fetch)
    with Guests() as guests:
        for _ in range(2):
            with pytest.raises(HarnessUnavailable, match="no Debian kernel"):
                guests().__enter__()
    assert (len(asked), outer.made) == (1, [])


def test_guest_with_served_devices_needs_neither_kvm_nor_an_outer_vm(
    outer: type[Outer], monkeypatch: pytest.MonkeyPatch, started: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(module, "ServedShell", lambda **options: module.GuestShell(None, **options))
    monkeypatch.setattr(module.newer, "with_client", lambda: ["qemu"])
    monkeypatch.setattr(module.needs, "missing", lambda emulated: "KVM" if emulated else None)
    with Guests() as guests, guests(devices=["virtio-dice"], modules=["evdev"], served=True) as guest:
        assert guest.run("echo up") == "up"
    (call,) = started
    assert (call["devices"], call["qemu"], outer.made) == (["virtio-dice"], ["qemu"], [])
    assert call["initramfs"]["modules"][-1] == "evdev"


def test_way_that_is_not_to_be_had_leaves_the_other(
    outer: type[Outer], monkeypatch: pytest.MonkeyPatch, started: list[dict[str, Any]]
) -> None:
    def fetch() -> None:
        raise HarnessUnavailable("no QEMU with a client")

    monkeypatch.setattr(module.newer, "with_client", fetch)
    monkeypatch.setattr(module.needs, "missing", lambda emulated: None)
    reasons: list[str] = []
    with Guests(skip=reasons.append) as guests:
        with pytest.raises(HarnessUnavailable, match="no QEMU with a client"):
            guests(served=True).__enter__()
        with guests() as guest:
            assert guest.run("echo up") == "up"
    assert reasons == ["no QEMU with a client"]


def test_arguments_of_a_machine_are_refused_where_devices_are_served() -> None:
    with Guests() as guests, pytest.raises(TypeError, match="no machine of acrn-dm's to have -m 512M"):
        guests("-m", "512M", served=True)


def test_environment_finds_modules_as_this_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "/usr", "/usr", "/nonexistent", str(tmp_path)])
    monkeypatch.chdir(tmp_path.parent)
    assert environment()["PYTHONPATH"] == os.pathsep.join([str(tmp_path.parent), "/usr", str(tmp_path)])


def test_environment_has_what_is_meant_for_python_and_acrn_dm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "environ", {"PYTHONHASHSEED": "1", "ACRN_DM_X": "2", "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"}
    )
    assert environment().keys() - {"PYTHONPATH", "PYTHONPYCACHEPREFIX"} == {"PYTHONHASHSEED", "ACRN_DM_X"}


@pytest.mark.parametrize(
    ("installed", "prefix", "kept"), [(True, None, False), (False, None, True), (False, "/own", False)]
)
def test_byte_code_is_kept_where_the_package_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool, prefix: str | None, kept: bool
) -> None:
    cached = tmp_path / "probe.pyc"
    if installed:
        cached.touch()
    monkeypatch.setattr(module, "cache_from_source", lambda path: str(cached))
    monkeypatch.setattr(sys, "pycache_prefix", prefix)
    monkeypatch.setattr(os, "environ", {places.HOME: str(tmp_path)})
    assert environment().get("PYTHONPYCACHEPREFIX") == (str(tmp_path / "bytecode") if kept else None)
