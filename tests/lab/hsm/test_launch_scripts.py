"""The launch lines of ``launch_scripts``, word for word, on the emulated HSM: how far each comes, and what it says.

The files that they name are put in place in the outer VM, whose file system is forgotten afterwards. What isn't there
is what a host would have: a second pair of CPUs, an integrated GPU, and devices that nobody has a plugin for.

A line is read by bash, on this host; what acrn-dm makes of the words that come of it is a fork of one that has been
started. One line is executed in there as it stands, from bash to acrn-dm. Lines I, of disks, are those of
``test_hsm``'s machines.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm.testing.guest.guests import environment
from acrn_dm.testing.guest.inner.initramfs import guest_init, guest_initramfs
from acrn_dm.testing.guest.kernels.debian import debian_kernel
from acrn_dm.testing.guest.outer.channel import GuestProcess, Result
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import ROOT, empty_scratch
from tests.lab.hsm.hsm_scene import rig_in
from tests.lab.hsm.launch_scripts import HOST_BRIDGE, NUC, ON_QEMU, REAL_TIME, UBUNTU, VHOST, WINDOWS, Script
from tests.lab.hsm.launch_scripts import WINDOWS_TUTORIAL as TUTORIAL
from tests.lab.machines.small_machine import LIMIT, wait_until
from tests.lab.stemmed import stem

pytestmark = pytest.mark.lab

FIRMWARE = Path("/usr/share/ovmf/OVMF.fd")  # Debian's package ovmf
SERIAL = 0x3F8
FLAG_RT, FLAG_LAPIC_PASSTHROUGH = 1 << 4, 1 << 1
PLACES = {
    "firmware": ("/usr/share/acrn/bios/OVMF.fd", "/root/OVMF.fd", "OVMF.fd"),
    "kernel": ("/home/guestl1/acrn-dm-bins/bzImage_uos", "/usr/lib/kernel/default-iot-lts2018"),
    "disk": (
        *("win10-ltsc.img", "core-image-weston-intel-corei7-64.wic", "/root/UserVM.img", "/home/acrn/UserVM.img"),
        "/root/preempt_rt/core-image-weston-intel-corei7-64.wic",
        "/home/guestl1/acrn-dm-bins/ubuntuUOS.img",
        "/home/clear/uos/uos.img",
    ),
}
HOME, PREPARED = Path("/run/launch"), Path("/run/launch/prepared")  # working directory of the scripts, in the outer VM
TAPS = ("tap0", "RT")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
WORDS = """#!/bin/sh
printf '%s\\0' "$@"
"""
WRAPPER = """#!/bin/sh
{exports}
exec {python} -m acrn_dm "$@"
"""


@attrs.define(eq=False)
class Host:
    """The outer VM as the host that a launch script was written for."""

    vm: OuterVm
    scratch: Path
    environment: Mapping[str, str]  # what puts the module below a process

    def run(self, script: Script, *, executed: bool = False) -> Result:
        """Run it to its end."""
        process = self.start(script, executed=executed)
        process.close_stdin()
        return process.wait(LIMIT)

    def start(self, script: Script, *, executed: bool = False) -> GuestProcess:
        """Start it where its relative paths lead to something."""
        if executed:
            around = {"PATH": f"{self.folder('acrn-dm')}:{PATH}", "HOME": "/root", **script.variables}
            return self.vm.spawn(script.command, cwd=HOME, env=around)
        program = [sys.executable, "-m", "tests.lab.hsm.elsewhere", str(HOME), *self.words(script)]
        around = {"PATH": PATH, "HOME": "/root", **self.environment}
        return self.vm.spawn(program, cwd=ROOT, env=around, stem=stem())

    def words(self, script: Script) -> list[str]:
        """What bash makes of the line: the arguments of its one acrn-dm."""
        around = {"PATH": f"{self.folder('words')}:{PATH}", "HOME": "/root", **script.variables}
        done = subprocess.run(script.command, env=around, capture_output=True, text=True, check=True)
        assert not done.stderr
        *words, rest = done.stdout.split("\0")
        assert not rest
        return words

    def end(self, process: GuestProcess) -> Result:
        """Press the power button twice: whatever the guest does, it is off then."""
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGINT)
        process.close_stdin()
        return process.wait(60)

    def prepare(self) -> None:
        """Put the files and the taps in place, unless they are; and an ``acrn-dm`` that finds the emulated HSM, and one
        that only tells its arguments.
        """
        names = {"PYTHONPATH": str(ROOT), **self.environment}
        exports = "\n".join(f"export {name}='{value}'" for name, value in names.items())
        for folder, text in (("acrn-dm", WRAPPER.format(exports=exports, python=sys.executable)), ("words", WORDS)):
            program = self.folder(folder) / "acrn-dm"
            program.parent.mkdir()
            program.write_text(text)
            program.chmod(0o755)
        if self.vm.run(["test", "-e", str(PREPARED)]).rc != 0:
            self._put_in_place()

    def folder(self, name: str) -> Path:
        """Where an ``acrn-dm`` is."""
        return self.scratch / name

    def _put_in_place(self) -> None:
        kernel = debian_kernel().quick_image  # a line names a kernel; how it is packed, the small machines show
        lines = [f"set -e; mkdir -p {HOME}; cd {HOME}"]
        lines += [f"mkdir -p {Path(place).parent}" for places in PLACES.values() for place in places]
        lines += [f"cp {FIRMWARE} {place}" for place in PLACES["firmware"]]
        lines += [f"ln -sf {kernel} {place}" for place in PLACES["kernel"]]
        lines += [f"truncate -s 64M {place}" for place in PLACES["disk"]]
        lines += [f"ip tuntap add dev {tap} mode tap; ip link set {tap} up" for tap in TAPS]
        done = self.vm.run("; ".join([*lines, f"touch {PREPARED}"]))
        assert done.rc == 0, done.stderr

    def rows(self) -> list[dict[str, Any]]:
        """What the rig has traced; its last line may not be whole yet."""
        file = self.scratch / "rig-trace"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines]

    def calls(self) -> list[str]:
        """Calls of the module that were a success, without those that repeat."""
        often = {"REQUEST", "ATTACH_IOREQ_CLIENT", "NOTIFY_REQUEST_FINISH", "SET_IRQLINE", "INJECT_MSI"}
        return [row["call"] for row in self.rows() if row["call"] not in often and row["result"] >= 0]

    def requests(self) -> list[dict[str, Any]]:
        """Accesses of the guest that acrn-dm was asked for."""
        return [row for row in self.rows() if row["call"] == "REQUEST"]


@pytest.fixture
def host(lab: OuterVm, request: pytest.FixtureRequest) -> Host:
    """Its processes record what the emulated HSM is asked for."""
    if not FIRMWARE.exists():
        pytest.skip(f"no {FIRMWARE} (package ovmf)")
    if not lab.alive():
        lab.restart()
    scratch = empty_scratch("scripts", request.node.name)
    on_hsm = {"RIG_REQUESTS": "1", **rig_in(scratch)}
    it = Host(lab, scratch, environment() if hasattr(request, "param") else on_hsm)
    it.prepare()
    return it


@pytest.fixture(scope="module", autouse=True)
def _taps(lab: OuterVm) -> Iterator[None]:
    yield
    if lab.alive():
        lab.run("; ".join(f"ip link delete {tap}" for tap in TAPS) + f"; rm -f {PREPARED}")


on_kvm = pytest.mark.parametrize("host", ["kvm"], indirect=True)


def complaint(result: Result) -> str:
    """The one line, besides warnings, on standard error."""
    (line,) = (line for line in result.stderr.splitlines() if not line.startswith("acrn-dm: warning: "))
    return line.removeprefix("acrn-dm: ")


def assert_runs(host: Host, process: GuestProcess) -> None:
    """The virtual machine was made and started, its guest asks for registers; then it is ended, and nothing is left."""
    try:
        wait_until(lambda: bool(host.requests()) or process.returncode is not None, LIMIT)
    finally:
        result = host.end(process)
    assert (result.rc, "forced off" in result.stderr) == (1, True), result.stderr
    calls = host.calls()
    order = [calls.index(call) for call in ("CREATE_VM", "SET_VCPU_REGS", "CREATE_IOREQ_CLIENT", "START_VM")]
    assert order == sorted(order)
    assert calls.count("DESTROY_VM") == 1
    assert calls.count("open") == calls.count("close")
    report = host.scratch / "rig-report"
    assert not report.exists() or report.read_text() == ""


def creation(host: Host) -> dict[str, Any]:
    """The arguments of CREATE_VM."""
    (row,) = (row for row in host.rows() if row["call"] == "CREATE_VM")
    return row


# Lines that end before there is a virtual machine

PASSTHROUGH = "-s 2,passthru,0/2/0: the original's emulation of 'passthru' is missing: no plugin provides it"
DMABUF = "-s 6,virtio-hyper_dmabuf: the original's emulation of 'virtio-hyper_dmabuf' is missing: no plugin provides it"
CDROM = "-s 5,ahci,cd:./Windows10.iso: the original's emulation of 'ahci' is missing: no plugin provides it"
OLD_TAP = "-s 4,virtio-net,tap0"
NO_AFFINITY = "--cpu_affinity: ACRN needs the host CPUs of each virtual CPU; this host's LAPIC ids: 0,1"
MENDED = TUTORIAL.changed(("win10-ltsc.img\n", "win10-ltsc.img \\\n"))
NUC_TAP = NUC.changed(("-c $2", "--cpus $2"), ("virtio-net,tap0", "virtio-net,tap=tap0"))


@pytest.mark.parametrize(
    ("script", "rc", "text"),
    [
        pytest.param(WINDOWS, 78, PASSTHROUGH, id="A"),
        pytest.param(REAL_TIME, 78, "--cpu_affinity: '4,6': no CPU has the LAPIC id 4; this host's", id="B"),
        pytest.param(MENDED, 78, PASSTHROUGH, id="D-mended"),
        pytest.param(MENDED.changed(("-s 2,passthru,0/2/0", "")), 78, CDROM, id="D-mended-without-gpu"),
        pytest.param(HOST_BRIDGE, 78, DMABUF, id="E"),
        pytest.param(HOST_BRIDGE.changed(("-s 6,virtio-hyper_dmabuf", "")), 78, NO_AFFINITY, id="E-without-dmabuf"),
        pytest.param(VHOST, 78, "--cpu_affinity: '64,66': no CPU has the LAPIC id 64; this host's", id="F"),
        pytest.param(UBUNTU, 78, OLD_TAP, id="G"),
        pytest.param(UBUNTU.changed(("tap0", "tap=tap0")), 78, NO_AFFINITY, id="G-with-the-tap-named"),
        pytest.param(NUC, 64, "-c: the number of CPUs is --cpus N, or --cpu_affinity with host LAPIC ids", id="H"),
        pytest.param(NUC_TAP, 78, DMABUF, id="H-as-told"),
    ],
)
def test_line_ends_at_what_is_not_there_and_names_it(host: Host, script: Script, rc: int, text: str) -> None:
    result = host.run(script)
    assert result.rc == rc, result.stderr
    assert text in complaint(result)
    assert "CREATE_VM" not in host.calls()


def test_line_d_as_printed_is_two_commands_without_a_name(host: Host) -> None:
    result = host.run(TUTORIAL, executed=True)
    first, second = result.stderr.splitlines()
    assert first == "acrn-dm: the VM's name is missing; give it as the last argument, or see --help"
    assert "-s: command not found" in second
    assert result.rc == 127


# Lines that start a virtual machine


def test_line_b_with_cpus_that_exist_starts_a_real_time_guest(host: Host) -> None:
    process = host.start(REAL_TIME.changed(("4,6", "0,1")))
    assert_runs(host, process)
    made = creation(host)
    assert (made["name"], made["affinity"], made["vcpu_num"]) == ("POST_RT_VM1", 3, 2)
    assert made["flags"] & FLAG_RT
    assert made["flags"] & FLAG_LAPIC_PASSTHROUGH


def test_line_c_starts_and_logs_to_all_three_places(host: Host) -> None:
    process = host.start(ON_QEMU)
    assert_runs(host, process)
    assert creation(host)["affinity"] == 2
    button = "power button pressed; the guest has 30 s"
    assert f"acrn-dm: INFO: {button}" in process.stderr
    assert f"acrn_dm: {button}" in host.vm.run("dmesg").stdout
    assert f"INFO acrn_dm.machine.requests: {button}" in host.vm.run("cat /var/log/acrn-dm/UserVM_log_0").stdout


def test_line_e_without_the_device_that_is_missing_starts(host: Host) -> None:
    script = HOST_BRIDGE.changed(("-s 6,virtio-hyper_dmabuf", "--cpu_affinity 0"))
    assert_runs(host, host.start(script))


def test_line_f_with_cpus_that_exist_starts_with_vhost(host: Host) -> None:
    if host.vm.run("test -c /dev/vhost-net").rc != 0:
        pytest.skip("the outer VM has no /dev/vhost-net")
    process = host.start(VHOST.changed(("64,66", "0,1")))
    assert_runs(host, process)
    assert "falling back" not in process.stderr
    assert creation(host)["flags"] & FLAG_RT


def test_line_g_with_tap_and_cpu_starts_its_kernel_which_prints(host: Host) -> None:
    """The line has no serial port: what ``earlyprintk`` writes is taken from the accesses that nobody answers."""

    def printed() -> str:
        written = [row for row in host.requests() if row["write"] and row["address"] == SERIAL]
        return bytes(row["value"] & 0xFF for row in written).decode("latin1")

    process = host.start(UBUNTU.changed(("tap0", "tap=tap0"), ("-A ", "-A --cpu_affinity 0 ")))
    wait_until(lambda: "root=/dev/vda1" in printed() or process.returncode is not None, LIMIT)
    assert_runs(host, process)
    assert f"Linux version {debian_kernel().version}" in printed()
    assert "Command line: earlyprintk=serial,ttyS0,115200n8 consoleblank=0 root=/dev/vda1 rw" in printed()
    assert "acrn-dm: warning: -A: ignored: ACPI tables are always built" in process.stderr


def test_line_h_with_what_it_is_told_to_change_starts(host: Host) -> None:
    script = NUC_TAP.changed(("--cpus $2", "--cpu_affinity 0,1"), ("-s 6,virtio-hyper_dmabuf", ""))
    process = host.start(script)
    assert_runs(host, process)
    warnings = [line.split(": ")[2] for line in process.stderr.splitlines() if line.startswith("acrn-dm: warning: ")]
    assert warnings == ["-A", "-G", "--mac_seed", "-s 2,pci-gvt"]


@on_kvm
def test_line_g_on_kvm_has_its_console_on_standard_output(host: Host) -> None:
    """As it stands but for the tap, and with a RAM disk: drivers of a stock kernel are modules."""
    kernel = debian_kernel()
    initramfs = guest_initramfs(kernel, init=guest_init(Path(__file__).with_name("console.sh")))
    process = host.start(UBUNTU.changed(("tap0", "tap=tap0"), ("-A ", f"-A -r {initramfs} ")))
    try:
        process.wait_for("POWEROFF", LIMIT)
    except Exception:
        host.end(process)
        raise
    process.close_stdin()
    result = process.wait(60)
    assert result.rc == 0, result.stderr
    assert f"Linux version {kernel.version}" in result.stdout
    assert re.search(r"\[ *[0-9.]+\] guest: through the kernel's log", result.stdout)
    assert "disk 67108864 bytes, network eth0, 1 cpus" in result.stdout
