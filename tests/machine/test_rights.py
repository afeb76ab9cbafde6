"""acrn_dm.machine.rights: what is in the way of giving rights up, and who keeps what for what comes later."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm.backends.broker import present
from acrn_dm.base.process.users import User
from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.plugins import PluginManager, make_plugin_manager
from acrn_dm.contract.types import Bdf, HypervisorType
from acrn_dm.hypervisors.sim import plugin as sim
from acrn_dm.machine.build import build
from acrn_dm.machine.rights import checks, giving_up
from acrn_dm.memory.hugepages import HugePages
from tests.backends.helper.test_user import needs_root
from tests.base.sandbox.sandbox_rig import ROOT, needs_all
from tests.memory.real_pools import POOL
from tests.patience import comes_true

NOBODY = User(text="nobody", uid=65534, gid=65534)
KNOWN = next(iter(sim.acrn_dm_hypervisor_types()))


def config(*devices: str, **more: Any) -> MachineConfig:
    specs = [text.partition(",") for text in devices]
    made = [DeviceSpec(bdf=Bdf(slot=3 + n), kind=kind, text=rest) for n, (kind, _, rest) in enumerate(specs)]
    return MachineConfig(devices=tuple(made), hypervisor="sim", **more)


@pytest.fixture
def plugins() -> PluginManager:
    return make_plugin_manager(entry_points=False)


def test_nothing_is_in_the_way_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(checks, "lacking", list)
    assert checks.check(config(user=NOBODY, sandbox="strict"), KNOWN) == []


def test_what_is_in_the_way_is_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(checks, "lacking", lambda: ["this kernel has no Landlock"])
    unknown = attrs.evolve(KNOWN, name="unknown", needs=None)
    only_root = "--user: 'nobody': only root can become another user"
    untold = "the hypervisor unknown does not say what it opens later"
    assert checks.check(config(user=NOBODY), unknown) == [only_root, f"--user: {untold}"]
    assert checks.check(config(sandbox="on", dump_guest_core=True), unknown) == [
        f"--sandbox: {untold}",
        "--sandbox: no process in a sandbox leaves a core, so --dump-guest-core on means nothing",
    ]
    assert checks.check(config(sandbox="strict"), KNOWN) == ["--sandbox: this kernel has no Landlock"]
    assert checks.check(config(sandbox="on"), KNOWN) == []


def test_all_of_it_is_in_the_machine_s_check(plugins: PluginManager) -> None:
    machine = build(config(sandbox="on", dump_guest_core=True), plugins)
    assert any(line.startswith("--sandbox: no process in a sandbox leaves a core") for line in machine.check())
    machine.close()


def test_broker_knows_the_sockets_and_orders_of_this_machine_and_no_others(
    tmp_path: Path, plugins: PluginManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[dict[str, str], dict[str, bytes], int]] = []
    monkeypatch.setattr(giving_up, "employ", lambda *rules: told.append(rules))
    texts = (
        f"virtio-blk,vhost-user={tmp_path / 'd'}",
        f"vfio-user,socket={tmp_path / 'f'}",
        f"virtio-blk,vhost-user={tmp_path / 'own'},server=on",
        "virtio-blk,nodisk,process=on",
        "virtio-blk,nodisk",
    )
    machine = build(config(*texts, user=NOBODY), plugins)
    giving_up.keep(machine.config, machine.functions)
    ((sockets, devices, firsts),) = told
    assert firsts == 2, "a thread for each vhost-user process that is another's"
    assert sockets == {str(tmp_path / "d"): "vhost-user", str(tmp_path / "f"): "vfio-user"}
    (order,) = devices.items()
    assert order[0] == "virtio-blk-6:0"
    assert b'"nobody", 65534, 65534' in order[1]
    machine.close()


def test_machine_without_such_devices_has_no_broker(plugins: PluginManager) -> None:
    machine = build(config("virtio-blk,nodisk", sandbox="on"), plugins)
    assert giving_up.keep(machine.config, machine.functions) is None
    assert present() is None
    machine.close()


def test_wish_of_a_device_for_a_user_is_kept(plugins: PluginManager) -> None:
    machine = build(config("virtio-blk,nodisk,process=on,user=65534:7", user=NOBODY), plugins)
    (function,) = machine.functions
    assert function.device.wish.user.gid == 7  # type: ignore[attr-defined]
    machine.close()


def test_hypervisor_types_say_what_they_need(plugins: PluginManager) -> None:
    types: dict[str, HypervisorType] = dict(plugins.hypervisor_types())
    assert {name for name, kind in types.items() if kind.needs is not None} == {"kvm", "sim"}


POOLED = """
import signal, sys
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.machine.build import build

config = MachineConfig(hypervisor="sim", sandbox="strict", hugepages="on", memory_bytes=128 << 20)
machine = build(config, make_plugin_manager(entry_points=False))
try:
    machine.realize()
    print("there", flush=True)
    sys.stdin.readline()
finally:
    machine.close()
"""


@needs_all
@pytest.mark.process
@pytest.mark.parametrize("killed", [False, True])
def test_pools_of_huge_pages_shrink_at_the_end_of_a_process_without_rights(real_pages: HugePages, killed: bool) -> None:
    """However it ends."""
    before = int(POOL.read_text())
    argv = [sys.executable, "-c", POOLED]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdin is not None
            assert run.stdout is not None
            assert run.stdout.readline() == "there\n"
            assert int(POOL.read_text()) > before
            if not killed:
                run.stdin.close()
                assert run.wait(60) == 0
        finally:
            run.kill()
    assert comes_true(lambda: int(POOL.read_text()) == before)


SCRIPT = """
import os, sys, time
from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import Bdf
from acrn_dm.base.process.users import User
from acrn_dm.machine.build import build

def status(pid):
    told = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    return [told[name].strip() for name in ("Uid", "CapEff", "Seccomp")]

disk = DeviceSpec(bdf=Bdf(slot=3), kind="virtio-blk", text=sys.argv[1] + ",process=on,sandbox=strict")
user = User(text="x", uid=54321000, gid=54321001)
config = MachineConfig(devices=(disk,), hypervisor="sim", sandbox=sys.argv[2], user=user)
machine = build(config, make_plugin_manager(entry_points=False))
try:
    machine.realize()
    print(status("self"), flush=True)
    door = machine.functions[0].data_plane.backend.door
    first = door._child.pid
    print(first, flush=True)
    sys.stdin.readline()
    until = time.monotonic() + 60
    while time.monotonic() < until and (door._child is None or door._child.pid == first or not door._child.taken):
        machine.main_loop.step(0.05)
    print(door._child.pid if door._child and door._child.taken else 0, flush=True)
    sys.stdin.readline()
    try:
        open("/etc/passwd")
        print("opened")
    except OSError as e:
        print(type(e).__name__)
finally:
    machine.close()
"""


@needs_root
@needs_all
@pytest.mark.parametrize(("mode", "seccomp", "opened"), [("off", "0", "opened"), ("strict", "2", "PermissionError")])
def test_next_process_of_a_device_is_started_for_a_process_without_rights(
    open_python: None, tmp_path: Path, mode: str, seccomp: str, opened: str
) -> None:
    """The image is root's alone."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 16))
    image.chmod(0o600)
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(image), mode],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        try:
            assert run.stdin is not None
            assert run.stdout is not None
            ids = "\t".join(["54321000"] * 4)
            assert run.stdout.readline() == f"{[ids, '0' * 16, seccomp]}\n"
            first = int(run.stdout.readline())
            os.kill(first, signal.SIGKILL)
            run.stdin.write("\n")
            run.stdin.flush()
            second = int(run.stdout.readline())
            assert second not in (0, first)
            assert f"Uid:\t{ids}" in Path(f"/proc/{second}/status").read_text()
            run.stdin.write("\n")
            run.stdin.flush()
            assert run.stdout.read() == f"{opened}\n"
            assert run.wait(60) == 0
        finally:
            run.kill()
