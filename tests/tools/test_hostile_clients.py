"""A short run of ``python -m tools.hostile_clients``; and exporters that a client can hurt, which it must notice."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.harm import assert_harmless
from tools.hostile_clients import DEVICES, WAYS
from tools.hostility import BENT, WRONG_ORDER

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.stress, pytest.mark.process]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tools.hostile_clients", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("device", DEVICES)
def test_clients_that_keep_no_rule_harm_neither_their_device_nor_the_other(device: str) -> None:
    """The tool's own default is ten thousand of them for each device."""
    done = run("--clients", "120", device)
    assert not done.stderr
    assert_harmless(
        done.stdout, device, 120, (*WAYS, *BENT, WRONG_ORDER, "overlapping memory", "memory of other sizes")
    )
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("leak", "descriptors have become"),
        ("sigbus", "the process ended with -7"),
        ("deaf", "the other device did not answer within 10 s"),
        ("stuck", "for 10 s|was not answered"),
    ],
)
def test_exporter_that_can_be_hurt_is_found_out(fault: str, said: str) -> None:
    done = run("--clients", "120", "--module", f"tests.tools.hurt_exporters.{fault}", "virtio-rnd")
    assert re.search(said, done.stdout), done.stdout + done.stderr
    assert done.returncode == 1
