"""The outer VM is up and has what acrn-dm needs; commands run in it as they should."""

import shlex
import socket
import sys

import pytest

from acrn_dm.testing.guest.errors import HarnessError, HarnessTimeout
from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.outer import vm as vm_module
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import LAB, ROOT
from tests.lab.vhost.vhost_scene import TRACING

KVM_GET_API_VERSION = 0xAE00
KVM_PROGRAM = f"import fcntl; print(fcntl.ioctl(open('/dev/kvm', 'rb'), {KVM_GET_API_VERSION}))"


def test_kvm_answers_with_its_api_version(lab: OuterVm) -> None:
    assert lab.run([sys.executable, "-c", KVM_PROGRAM]).stdout == "12\n"


def test_kvm_amd_is_loaded(lab: OuterVm) -> None:
    assert "\nkvm_amd " in lab.run("cat /proc/modules").stdout


# Three times: a machine, its interrupt controllers, a vCPU; and all gone.
COMING_AND_GOING = """
import fcntl, os
kvm = os.open("/dev/kvm", os.O_RDWR)
for _ in range(3):
    machine = fcntl.ioctl(kvm, 0xAE01, 0)
    fcntl.ioctl(machine, 0xAE60, 0)
    vcpu = fcntl.ioctl(machine, 0xAE41, 0)
    os.close(vcpu)
    os.close(machine)
"""


def test_virtual_machines_come_and_go_without_a_patch_of_the_kernels_code(lab: OuterVm) -> None:
    """See ``agent.hold_kvm``."""
    probe = f"{TRACING}/events/patches/jump_label"
    steps = [
        f"mountpoint -q {TRACING} || mount -t tracefs tracefs {TRACING}",
        f"echo 'p:patches/jump_label jump_label_update' >> {TRACING}/kprobe_events",
        f"echo 1 > {probe}/enable",
        f"echo > {TRACING}/trace",
        f"{shlex.quote(sys.executable)} -c {shlex.quote(COMING_AND_GOING)}",
        f"grep -c jump_label: {TRACING}/trace || true",
        f"echo 0 > {probe}/enable",
        f"echo -:patches/jump_label >> {TRACING}/kprobe_events",
    ]
    done = lab.run("set -e; " + "; ".join(steps))
    assert (done.rc, done.stdout) == (0, "0\n"), done


@pytest.mark.parametrize("node", ["kvm", "vhost-net", "vhost-vsock", "net/tun"])
def test_device_node_opens(lab: OuterVm, node: str) -> None:
    assert lab.run(["sh", "-c", f"exec 3<>/dev/{node}"]).rc == 0


def test_a_tap_can_be_made(lab: OuterVm) -> None:
    made = lab.run("ip tuntap add dev probe0 mode tap && ip -br link show probe0; ip tuntap del dev probe0 mode tap")
    assert made.stdout.startswith("probe0"), made


def test_this_checkout_imports_in_there_at_its_own_path(lab: OuterVm) -> None:
    result = lab.run([sys.executable, "-c", "import acrn_dm; print(acrn_dm.__path__[0])"], cwd=ROOT)
    assert result.stdout == f"{ROOT / 'acrn_dm'}\n", result


def test_python_in_there_has_its_byte_code_where_this_one_has(lab: OuterVm) -> None:
    result = lab.run([sys.executable, "-c", "import sys; print(sys.pycache_prefix)"])
    assert result.stdout == f"{sys.pycache_prefix}\n", result


def test_run_gives_status_and_both_outputs(lab: OuterVm) -> None:
    result = lab.run("echo out; echo err >&2; exit 7")
    assert (result.rc, result.stdout, result.stderr) == (7, "out\n", "err\n")


def test_run_of_a_process_that_kills_itself_gives_the_signal(lab: OuterVm) -> None:
    assert lab.run("kill -TERM $$").rc == -15


def test_run_passes_input_directory_and_environment(lab: OuterVm) -> None:
    result = lab.run('cat; pwd; echo "$WORD"', stdin=b"typed\n", cwd="/proc", env={"WORD": "a b"})
    assert result.stdout == "typed\n/proc\na b\n"


def test_run_passes_megabytes_both_ways(lab: OuterVm) -> None:
    data = b"0123456789abcde\n" * 65536 * 2
    assert lab.run(["cat"], stdin=data).stdout.encode() == data


def test_run_of_a_program_that_is_not_there_raises(lab: OuterVm) -> None:
    with pytest.raises(HarnessError, match="No such file"):
        lab.run(["/nonexistent"])


def test_run_past_its_time_raises_with_the_output_so_far_and_kills(lab: OuterVm) -> None:
    with pytest.raises(HarnessTimeout, match="begun"):
        lab.run("echo begun; sleep 1234", timeout=1)
    assert "sleep 1234" not in lab.run("cat /proc/[1-9]*/cmdline | tr '\\0' ' '").stdout


def test_spawned_process_can_be_talked_with(lab: OuterVm) -> None:
    process = lab.spawn('while read -r line; do echo "got $line"; done; echo over')
    process.write(b"one\n")
    process.wait_for("got one\n")
    process.write(b"two\n")
    process.wait_for("got two\n")
    assert process.returncode is None
    process.close_stdin()
    assert process.wait().stdout == "got one\ngot two\nover\n"


def test_commands_run_beside_one_another(lab: OuterVm) -> None:
    waiting = lab.spawn(["cat"])
    assert lab.run("echo meanwhile").stdout == "meanwhile\n"
    waiting.close_stdin()
    assert waiting.wait().rc == 0


def test_share_shows_files_of_each_side_to_the_other(lab: OuterVm) -> None:
    path = LAB / "share-probe"
    path.write_text("from the host\n")
    assert lab.run(f"cat '{path}' && echo from the VM > '{path}'").stdout == "from the host\n"
    assert path.read_text() == "from the VM\n"
    path.unlink()


def test_writes_elsewhere_stay_in_the_vm(lab: OuterVm) -> None:
    path = ROOT / "build" / "lab-write-probe"
    assert lab.run(f"echo inside > '{path}' && cat '{path}'").stdout == "inside\n"
    assert not path.exists()


def test_vm_that_is_gone_raises_instead_of_hanging() -> None:
    vm = OuterVm()
    with pytest.raises(HarnessError):
        vm.run("true")


def test_hostname_is_not_this_hosts(lab: OuterVm) -> None:
    assert lab.run("cat /proc/sys/kernel/hostname").stdout.strip() not in {"", socket.gethostname()}


@pytest.mark.lab
def test_boot_that_hangs_is_tried_once_more_and_a_vm_closed_under_a_command_ends_it_with_an_error(
    lab_kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vm_module, "BOOT_LIMITS", (0.1, 120.0))
    with OuterVm(name="retried", memory_mib=1024) as vm:
        assert vm.early_hangs == 1
        assert vm.run(["true"]).rc == 0
        process = vm.spawn(["cat"])
    with pytest.raises(HarnessError):
        process.wait()


@pytest.mark.lab
def test_boot_that_hangs_twice_raises(lab_kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm_module, "BOOT_LIMITS", (0.1, 0.1))
    with pytest.raises(HarnessTimeout, match="did not come up"), OuterVm(name="hanging", memory_mib=1024):
        pass
