"""A stock guest whose consoles' readers are connected and do not read."""

import json
import sys
from pathlib import Path

import pytest

from acrn_dm.testing.guest.command_line import COMMAND_LINE
from acrn_dm.testing.guest.inner.initramfs import guest_init, guest_initramfs
from acrn_dm.testing.guest.kernels.debian import debian_kernel
from acrn_dm.testing.guest.outer.vm import OuterVm
from lab.paths import ROOT
from tests.lab.stemmed import stem

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("cpus", [1, 2])
def test_guest_goes_on_and_its_second_port_answers_within_a_second(lab: OuterVm, cpus: int) -> None:
    """hvc spins with a lock held and interrupts off until its output is taken: on a pty, and on a socket."""
    kernel = debian_kernel()
    initramfs = guest_initramfs(kernel, init=guest_init(Path(__file__).with_name("stopped.sh")))
    arguments = [
        *("--hypervisor", "kvm", "--cpus", str(cpus), "-s", "0:0,hostbridge", "-s", "1:0,lpc", "-l", "com1,stdio"),
        *("-k", str(kernel.quick_image), "-r", str(initramfs), "-B", COMMAND_LINE, "stopped"),
    ]
    program = [sys.executable, "-m", "tests.lab.machines.stopped_reader", *arguments]
    done = lab.spawn(program, cwd=ROOT, stem=stem()).wait(300)
    assert done.rc == 0, done.stderr
    result = json.loads(done.stdout)
    print(result)
    assert result["stalled"] == 2, "both consoles got so far that output was dropped"
    assert result["slowest"] < 1.0
    assert result["cpu_idle"] < 0.5
    assert result["newest"] == [True, True]
    assert result["status"] == 0
