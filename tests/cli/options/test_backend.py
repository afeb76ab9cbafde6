"""``backend=NAME``: who moves a device's data, chosen by name for any device."""

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm.backends.vbs_u import VbsU
from acrn_dm.cli import main
from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.options import option
from acrn_dm.contract.plugins import PluginManager, make_plugin_manager
from acrn_dm.contract.types import BackendType, Bdf, DeviceType
from acrn_dm.machine.build import build
from acrn_dm.virtio.device import VirtioDevice
from tests.boot.samples import make_bzimage
from tests.cli.fakes import plugin


@attrs.frozen(kw_only=True)
class OwnField:
    """Options of a device that means something else by the word."""

    backend: str = option(default="none", help="Its own.")


class OwnDevice(VirtioDevice):
    device_id = 42

    def __init__(self, config: OwnField, context: Any) -> None:
        super().__init__(context)
        self.backend_text = f"own {config.backend}"


KINDS = [DeviceType(name="own", summary="", config=OwnField, create=OwnDevice)]
FAR = BackendType(name="far", summary="far away", kinds={"virtio-blk", "virtio-console", "own"}, create=VbsU)
WIDE = BackendType(name="wide", summary="everywhere", kinds={"*"}, create=VbsU)


def make_manager(**arguments: Any) -> PluginManager:
    extra = plugin("elsewhere", acrn_dm_device_types=lambda: KINDS, acrn_dm_backend_types=lambda: [FAR, WIDE])
    return make_plugin_manager(entry_points=False, extra=[extra])


@attrs.frozen
class DryRun:
    folder: Path
    capsys: Any

    def __call__(self, *args: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        code = main(["--dry-run", "--hypervisor", "sim", "-k", "kernel", *args, "vm"], make_manager=make_manager)
        return (code, *self.capsys.readouterr())

    def backend(self, *args: str) -> str:
        """What the table has of the last device."""
        out = self("--json", *args)[1]
        return str(json.loads(out)["devices"][-1]["backend"])

    def notes(self, *args: str) -> list[str]:
        return [note for note in json.loads(self("--json", *args)[1])["notes"] if "backend" in note]


@pytest.fixture
def dry_run(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> DryRun:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kernel").write_bytes(make_bzimage())
    (tmp_path / "a.img").write_bytes(bytes(8192))
    return DryRun(tmp_path, capsys)


@pytest.mark.parametrize(
    ("device", "shown"),
    [
        ("virtio-blk,a.img", "a.img"),
        ("virtio-blk,a.img,backend=far", "a.img (far)"),
        ("virtio-blk,a.img,backend=far,ro", "a.img (far)"),
        ("virtio-blk,backend=wide,mq=2,a.img", "a.img (wide)"),
        ("virtio-blk,a.img,backend=vbs-u", "a.img"),
        ("virtio-blk,./backend=far", "backend=far"),
        ("virtio-console,pty:a,backend=far", "pty (far)"),
        ("virtio-net,tap=none,backend=wide", "tap none (wide)"),
        ("virtio-net,tap=none,backend=vhost", "tap none (vhost)"),
        ("own,backend=far", "own far"),
    ],
)
def test_backend_is_chosen_in_every_grammar_and_shown(dry_run: DryRun, device: str, shown: str) -> None:
    assert dry_run.backend("-s", f"3,{device}") == shown


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ('type = "virtio-blk"\npath = "a.img"\nbackend = "far"', "a.img (far)"),
        ('type = "virtio-blk"\noptions = "a.img,backend=far"', "a.img (far)"),
        ('type = "virtio-console"\nbackend = "wide"\nports = "pty:a"', "pty (wide)"),
        ('type = "own"\nbackend = "far"', "own far"),
    ],
)
def test_backend_is_a_key_in_a_file(dry_run: DryRun, keys: str, shown: str) -> None:
    (dry_run.folder / "vm.toml").write_text(f'[[device]]\nslot = "3"\n{keys}\n')
    assert dry_run.backend("--config", "vm.toml") == shown


@pytest.mark.parametrize(
    ("device", "line"),
    [
        ("virtio-blk,a.img,backend=near",
         "virtio-blk-3:0: 'near': no such backend; there are: far, vbs-u, vhost-user, wide"),
        ("virtio-blk,a.img,backend=vhost",
         "virtio-blk-3:0: 'vhost': does not serve this device; there are: far, vbs-u, vhost-user, wide"),
        ("lpc,backend=far,backend=far", "-s 3,lpc,backend=far,backend=far: option 'backend' is given twice"),
        ("virtio-blk,a.img,backend=", "-s 3,virtio-blk,a.img,backend= backend: expected the name of a backend"),
        ("virtio-blk,a.img,backend=vhost-user", "virtio-blk-3:0: the vhost-user backend needs a socket"),
        ("virtio-blk,vhost-user=/s,backend=far",
         "virtio-blk-3:0: 'backend=far': /s is the socket of the backend vhost-user"),
        ("virtio-net,tap=t,vhost,backend=vhost", "virtio-net-3:0: vhost and backend exclude each other"),
        ("lpc,backend=far", "lpc-3:0: 'backend=far': no virtio device, so it has no backend"),
    ],
    ids=lambda text: text.partition(":")[0],
)  # fmt: skip
def test_backend_that_can_not_be_had_is_refused_in_one_line(dry_run: DryRun, device: str, line: str) -> None:
    code, out, err = dry_run("-s", f"3,{device}")
    assert (code, out, err.count("\n")) == (78, "", 1)
    assert err == f"acrn-dm: {line}\n"


def test_device_list_has_the_backends_and_says_how_to_choose_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-s", "help"], make_manager=make_manager) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert (
        " Backends; 'backend=NAME' among the options of a virtio device chooses who moves its data far far away" in text
    )
    assert " far far away; for own, virtio-blk, virtio-console [plugin elsewhere (given by the caller)] vbs-u " in text
    assert " wide everywhere; for all [plugin elsewhere (given by the caller)] 'strict=on' there checks " in text


def test_key_that_is_no_text_is_refused(dry_run: DryRun) -> None:
    (dry_run.folder / "vm.toml").write_text(
        '[[device]]\nslot = "3"\ntype = "virtio-blk"\npath = "a.img"\nbackend = 7\n'
    )
    code, _, err = dry_run("--config", "vm.toml")
    assert code == 78
    assert err == "acrn-dm: vm.toml: device 1 (0:3.0, virtio-blk) backend: 7: expected the name of a backend\n"


def test_plugin_is_told_of_a_backend_that_serves_a_device_and_is_not_chosen(dry_run: DryRun) -> None:
    assert dry_run.notes("-s", "3,virtio-net,tap=none") == [
        "the backend wide of plugin elsewhere (given by the caller) serves virtio-net-3:0 and moves no data here; "
        "backend=wide chooses it"
    ]
    assert dry_run.notes("-s", "3,virtio-net,tap=none,backend=wide") == []
    assert dry_run.notes("-s", "3,lpc") == []


def test_machine_that_starts_has_it_in_the_log(caplog: pytest.LogCaptureFixture, dry_run: DryRun) -> None:
    disk = DeviceSpec(bdf=Bdf(slot=3), kind="virtio-blk", text="a.img,backend=far")
    machine = build(MachineConfig(hypervisor="sim", devices=(disk,)), make_manager(), threads=False)
    with caplog.at_level(logging.INFO, "acrn_dm.machine"), contextlib.closing(machine):
        machine.realize()
    told = [record.getMessage() for record in caplog.records if "moves no data here" in record.getMessage()]
    assert [line.split()[2] for line in told] == ["wide"]
