"""Command lines that people have: from generated scripts, documents and bug reports, with placeholders expanded.

Each is either the machine it asks for, or refused with the name of what is missing.
"""

import shlex
from pathlib import Path

import pytest

from acrn_dm.base.address_map import MIB
from acrn_dm.contract.config import Firmware
from acrn_dm.devices.virtio_blk.config import BlkConfig
from acrn_dm.devices.virtio_console.config import ConsoleConfig
from acrn_dm.devices.virtio_net.config import NetConfig
from acrn_dm.machine.resolve import ResolvedDevice, resolve_devices
from tests.cli.fakes import Cli

MISSING = "the original's emulation of '{}' is missing: no plugin provides it"
LOGGERS = "--logger_setting 'console,level=4;kmsg,level=3;disk,level=5'"
LOGGERS_OF_GUIDE = "--logger_setting 'console,level=5;kmsg,level=6;disk,level=5'"

WINDOWS_SCRIPT = (
    "--windows --cpu_affinity 0,2 -m 4096M --ovmf {ovmf} -s 1:0,lpc -s 0:0,hostbridge "
    "-s 3,virtio-console,@stdio:stdio_port -s 4,virtio-net,tap=WaaG,mac_seed=90:12:10:b5:7d:f7-POST_STD_VM1 "
    f"-s 5,virtio-blk,./win10-ltsc.img -s 2,passthru,0/2/0 {LOGGERS} POST_STD_VM1"
)
RT_SCRIPT = (
    "--cpu_affinity 4,6 -m 1024M --ovmf {ovmf} -s 0:0,hostbridge --virtio_poll 1000000 "
    "-s 3,virtio-console,@stdio:stdio_port -s 4,virtio-net,tap=RT,mac_seed=90:12:10:b5:7d:f7-POST_RT_VM1 "
    f"-s 5,virtio-blk,./core-image-weston-intel-corei7-64.wic --rtvm --lapic_pt {LOGGERS} POST_RT_VM1"
)
QEMU_TUTORIAL = (
    "-m 1024M -s 0:0,hostbridge -s 3,virtio-blk,/root/UserVM.img -s 4,virtio-net,tap=tap0 --cpu_affinity 1 "
    "-s 5,virtio-console,@stdio:stdio_port --ovmf {ovmf} " + LOGGERS + " UserVM"
)
WINDOWS_TUTORIAL = (
    "-m 4096M -s 0:0,hostbridge -s 1:0,lpc -l com1,stdio -s 2,passthru,0/2/0 -s 8,virtio-net,tap=tap0 "
    "-s 4,virtio-blk,./win10-ltsc.img -s 5,ahci,cd:./Windows10.iso -s 6,ahci,cd:./winvirtio.iso "
    "-s 7,passthru,0/14/0,d3hot_reset --ovmf {ovmf} --windows win"
)
HOSTBRIDGE_HLD = (
    "-m 2048M -s 0:0,hostbridge -s 5,virtio-console,@stdio:stdio_port -s 6,virtio-hyper_dmabuf "
    "-s 3,virtio-blk,/home/acrn/UserVM.img -s 4,virtio-net,tap=tap0,mac_seed=00:11:22:33:44:55-vm1 -s 7,virtio-rnd "
    "--ovmf {ovmf} " + LOGGERS + " vm1"
)
VHOST_REPORT = (
    "--cpu_affinity 64,66 -m 1024M --ovmf {ovmf} -s 0:0,hostbridge --virtio_poll 1000000 "
    "-s 3,virtio-console,@stdio:stdio_port "
    "-s 4,virtio-net,tap=RT,vhost,mac_seed=90:12:10:b5:7d:f7-POST_RT_VM1 "
    "-s 5,virtio-blk,/root/preempt_rt/core-image-weston-intel-corei7-64.wic --rtvm --lapic_pt POST_RT_VM1"
)
UBUNTU_30 = (
    "-A -m 1024M -s 0:0,hostbridge -s 3,virtio-blk,/home/guestl1/acrn-dm-bins/ubuntuUOS.img -s 4,virtio-net,{net} "
    "-s 5,virtio-console,@stdio:stdio_port -k /home/guestl1/acrn-dm-bins/bzImage_uos "
    '-B "earlyprintk=serial,ttyS0,115200n8 consoleblank=0 root=/dev/vda1 rw rootwait maxcpus=1 nohpet console=tty0 '
    'console=hvc0 console=ttyS0 no_timer_check ignore_loglevel log_buf_len=16M tsc=reliable" ' + LOGGERS + " uos"
)
NUC_2019 = (
    '-A -m 2048M -c 4 -s 0:0,hostbridge -s 1:0,lpc -l com1,stdio -s 2,pci-gvt -G "64 448 8" '
    "-s 5,virtio-console,@pty:pty_port -s 6,virtio-hyper_dmabuf -s 3,virtio-blk,/home/clear/uos/uos.img "
    "-s 4,virtio-net,tap0 --mac_seed 00:11:22-vm1 -k /usr/lib/kernel/default-iot-lts2018 "
    '-B "root=/dev/vda3 rw rootwait maxcpus=4 nohpet console=tty0 console=hvc0" vm1'
)


@pytest.fixture
def ovmf(tmp_path: Path) -> str:
    image = tmp_path / "OVMF.fd"
    image.write_bytes(b"\xff" * 4096)
    return str(image)


def without(line: str, *options: str) -> list[str]:
    """*line* as an argument list, without these options and their values."""
    args = shlex.split(line)
    for option in options:
        words = shlex.split(option)
        at = next(i for i in range(len(args)) if args[i : i + len(words)] == words)
        del args[at : at + len(words)]
    return args


def resolved(cli: Cli, *args: str) -> dict[str, ResolvedDevice]:
    """The machine's devices by place."""
    config = cli.config(*args)
    assert cli.machine is not None
    return {str(d.spec.bdf): d for d in resolve_devices(config, cli.machine.plugins)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (WINDOWS_SCRIPT, MISSING.format("passthru")),
        (WINDOWS_TUTORIAL, MISSING.format("passthru")),
        (HOSTBRIDGE_HLD, MISSING.format("virtio-hyper_dmabuf")),
        (UBUNTU_30.replace("{net}", "tap0"), "tap=NAME"),
        (NUC_2019, "-c: the number of CPUs is --cpus N"),
        (NUC_2019.replace("-c 4", "--cpus 4"), "tap=NAME"),
        (NUC_2019.replace("-c 4", "--cpus 4").replace("tap0", "tap=tap0"), MISSING.format("virtio-hyper_dmabuf")),
    ],
)
def test_command_line_is_refused_with_the_name_of_what_is_missing(cli: Cli, ovmf: str, line: str, message: str) -> None:
    code, _, err = cli(*shlex.split(line.replace("{ovmf}", ovmf)))
    assert code in (64, 78)
    errors = [text for text in err.splitlines() if ": warning: " not in text]
    assert len(errors) == 1
    assert message.replace("{ovmf}", ovmf) in errors[0]


@pytest.mark.parametrize(
    "line", [RT_SCRIPT, QEMU_TUTORIAL, QEMU_TUTORIAL.replace(LOGGERS, LOGGERS_OF_GUIDE), VHOST_REPORT]
)
def test_command_line_is_the_machine_it_describes(cli: Cli, ovmf: str, line: str) -> None:
    config = cli.config(*shlex.split(line.replace("{ovmf}", ovmf)))
    assert config.firmware == Firmware(image=Path(ovmf))
    assert config.cpu_affinity


@pytest.mark.parametrize(
    ("line", "drop", "missing"),
    [
        (WINDOWS_SCRIPT, ["--ovmf {ovmf}"], MISSING.format("passthru")),
        (WINDOWS_TUTORIAL, ["--ovmf {ovmf}"], MISSING.format("passthru")),
        (WINDOWS_TUTORIAL, ["--ovmf {ovmf}", "-s 2,passthru,0/2/0"], MISSING.format("ahci")),
        (HOSTBRIDGE_HLD, ["--ovmf {ovmf}"], MISSING.format("virtio-hyper_dmabuf")),
        (HOSTBRIDGE_HLD, ["--ovmf {ovmf}", "-s 6,virtio-hyper_dmabuf"], MISSING.format("virtio-rnd")),
    ],
)
def test_without_firmware_the_missing_emulation_is_named(cli: Cli, line: str, drop: list[str], missing: str) -> None:
    code, _, err = cli(*without(line, *drop), "-k", "/k")
    assert code == 78
    assert missing in err


def test_windows_script_without_firmware_and_passthrough_is_the_machine_it_describes(cli: Cli) -> None:
    args = [*without(WINDOWS_SCRIPT, "--ovmf {ovmf}", "-s 2,passthru,0/2/0"), "-k", "/k"]
    devices = resolved(cli, *args)
    assert {place: d.type.name for place, d in devices.items()} == {
        "0:0.0": "hostbridge",
        "0:1.0": "lpc",
        "0:3.0": "virtio-console",
        "0:4.0": "virtio-net",
        "0:5.0": "virtio-blk",
    }
    net, disk, console = (devices[f"0:{slot}.0"].options for slot in (4, 5, 3))
    assert net == NetConfig(tap="WaaG", mac_seed="90:12:10:b5:7d:f7-POST_STD_VM1")
    assert disk == BlkConfig(path=Path("win10-ltsc.img"))
    assert isinstance(console, ConsoleConfig)
    assert (console.ports[0].type, console.ports[0].name, console.ports[0].console) == ("stdio", "stdio_port", True)
    assert cli.machine is not None
    config = cli.machine.config
    assert (config.name, config.memory_bytes, config.vcpus, config.cpu_affinity, config.windows) == (
        "POST_STD_VM1", 4096 * MIB, 2, (0, 2), True,
    )  # fmt: skip
    assert devices["0:4.0"].context.windows


def test_real_time_script_is_a_real_time_guest_that_polls(cli: Cli, ovmf: str) -> None:
    args = shlex.split(RT_SCRIPT.replace("{ovmf}", ovmf))
    devices = resolved(cli, *args)
    assert {d.context.poll_ns for d in devices.values()} == {1_000_000}
    assert {d.context.vcpus for d in devices.values()} == {2}
    config = cli.config(*args)
    assert (config.rtvm, config.lapic_pt) == (True, True)


def test_vhost_report_without_firmware_uses_the_seed_behind_vhost(cli: Cli) -> None:
    devices = resolved(cli, *without(VHOST_REPORT, "--ovmf {ovmf}"), "-k", "/k")
    assert devices["0:4.0"].options == NetConfig(tap="RT", vhost=True, mac_seed="90:12:10:b5:7d:f7-POST_RT_VM1")
    assert cli.machine is not None
    assert cli.machine.config.cpu_affinity == (64, 66)


def test_ubuntu_script_with_the_tap_named_boots_its_kernel(cli: Cli) -> None:
    devices = resolved(cli, *shlex.split(UBUNTU_30.replace("{net}", "tap=tap0")))
    assert cli.machine is not None
    config = cli.machine.config
    assert (config.kernel, config.name) == (Path("/home/guestl1/acrn-dm-bins/bzImage_uos"), "uos")
    assert config.bootargs.startswith("earlyprintk=serial,ttyS0")
    assert devices["0:3.0"].options == BlkConfig(path=Path("/home/guestl1/acrn-dm-bins/ubuntuUOS.img"))


def test_script_of_2019_works_after_what_it_is_told_to_change(cli: Cli) -> None:
    line = NUC_2019.replace("-c 4", "--cpus 4").replace("tap0", "tap=tap0")
    args = without(line, "-s 6,virtio-hyper_dmabuf")
    devices = resolved(cli, *args)
    assert "0:2.0" not in devices
    assert cli.machine is not None
    assert (cli.machine.config.vcpus, cli.machine.config.uarts[0].backend) == (4, "stdio")
    err = cli(*args)[2].splitlines()
    assert [line.split(": ")[2] for line in err] == ["-A", "-G", "--mac_seed", "-s 2,pci-gvt"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iothread=2,mq=2,/dev/nvme1n1,writeback,aio=io_uring", {"mq": 2, "cache": "writeback", "aio": "io_uring"}),
        ("iothread,mq=2,/dev/nvme1n1,writeback,aio=threads", {"mq": 2, "cache": "writeback", "aio": "threads"}),
        ("iothread=3@0/*/1,mq=3,/dev/nvme1n1", {"mq": 3, "cache": "writethru"}),
        ("/dev/nvme1n1,no_bst_block", {"no_bst_block": True}),
        ("/dev/nvme1n1,writeback,nocache", {"cache": "writeback", "nocache": True}),
    ],
)
def test_disk_options_of_the_original_are_read(cli: Cli, text: str, expected: dict[str, object]) -> None:
    options = resolved(cli, "-s", f"3,virtio-blk,{text}", "vm")["0:3.0"].options
    assert options.path == Path("/dev/nvme1n1")
    assert {name: getattr(options, name) for name in expected} == expected


def test_disk_threads_are_pinned_as_written(cli: Cli) -> None:
    options = resolved(cli, "-s", "3,virtio-blk,iothread=3@0/*/1,mq=3,/dev/nvme1n1", "vm")["0:3.0"].options
    assert (options.iothread.count, options.iothread.cpus) == (3, ((0,), (), (1,)))
