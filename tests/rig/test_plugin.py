"""The ``hsm`` plugin, unmodified, against the emulated HSM: it opens the node and issues real ioctls."""

import errno
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.hsm.build import library
from tests.rig.conftest import Rig

ROOT = Path(__file__).resolve().parents[2]


def preloaded(rig: Rig, *argv: str, timeout: float = 300, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a Python process that has the rig below it."""
    environment = {**os.environ, "LD_PRELOAD": str(library()), **settings}
    command = [sys.executable, *argv]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def test_node_is_there_for_whoever_asks_by_path(rig: Rig) -> None:
    lines = (
        "import os, pathlib, stat",
        "node = pathlib.Path('/dev/acrn_hsm')",
        "print(node.exists(), stat.S_ISCHR(os.stat(node).st_mode), os.access(node, os.R_OK | os.W_OK))",
        "os.close(os.open(node, os.O_RDWR | os.O_CLOEXEC))",
    )
    assert preloaded(rig, "-c", "\n".join(lines)).stdout == "True True True\n"
    assert rig.calls() == ["open", "close"]


def test_process_that_leaves_a_vm_behind_is_reported(rig: Rig) -> None:
    lines = (
        "from tests.rig.client import Client",
        "client = Client(None)",
        "client.create()",
    )
    preloaded(rig, "-c", "\n".join(lines), RIG_STORM="0")
    rig.expect("the process ended with a VM")


INTERFACES = pytest.mark.parametrize("interface", [{"RIG_ACRN": "1"}, {"RIG_VHM": "1"}], ids=["hsm", "vhm"])


@pytest.mark.process
@INTERFACES
def test_plugin_keeps_the_hypervisor_protocol(rig: Rig, interface: dict[str, str]) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm that opens")
    done = preloaded(rig, "-m", "pytest", "-q", "-x", "tests/rig/plugin_protocol.py", **interface)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"^(\d+) passed, 0 failed", done.stdout, re.MULTILINE)
    assert passed is not None
    assert int(passed[1]) > 40
    assert {text for text in rig.violations() if "length 3" not in text} == set()  # one test binds such a kick
    rig.expect(*rig.violations())


@pytest.mark.stress
@INTERFACES
def test_storm_of_requests_loses_and_doubles_none(rig: Rig, interface: dict[str, str]) -> None:
    """102,400 accesses of 8 vCPUs, with spurious ATTACH returns, slots the module handles, and a signal each ms."""
    settings = {} if "RIG_ACRN" in interface else interface
    done = preloaded(rig, "-m", "lab.hsm.storm", "102400", RIG_SPURIOUS="5", **settings)
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout)
    (stats,) = rig.stats()
    assert seen["events"] == []
    assert seen["accesses"] == stats["ioreqs"] == stats["notify"] == 102_400 + 8
    assert seen["kicks"] == stats["kernel_handled"] == 102_400 // 8
    assert seen["signals"] > 10
    assert stats["spurious"] > 100


ERRORS = (errno.EPERM, errno.EINVAL, errno.EIO, errno.ENOMEM)
CALLS = (
    *("open", "IOEVENTFD", "SET_VCPU_REGS", "CREATE_IOREQ_CLIENT", "START_VM"),
    *("PAUSE_VM", "DESTROY_IOREQ_CLIENT", "IOEVENTFD@2", "DESTROY_VM"),
)


@pytest.mark.parametrize(
    ("call", "err"), [*(("CREATE_VM", err) for err in ERRORS), *zip(CALLS, itertools.cycle(ERRORS), strict=False)]
)
def test_failure_of_a_call_is_named_and_leaves_no_vm_behind(rig: Rig, call: str, err: int) -> None:
    """The rig would report a VM that was left behind, and a call out of order."""
    name = call.partition("@")[0]
    every = "@*" if name == "CREATE_VM" and err != errno.EPERM else ""
    plan = f"{call}{every}={err}"
    done = preloaded(rig, "-m", "lab.hsm.storm", "8", "1", RIG_FAIL=plan)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    if name == "CREATE_VM" and not every:
        assert seen["error"] == ""  # tried again
    else:
        assert name in seen["error"]
        assert errno.errorcode[err] in seen["error"]
