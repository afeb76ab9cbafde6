"""Whether KVM can be used: every reason is told apart, without touching the real device."""

from pathlib import Path

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.hypervisors.kvm import plugin as kvm
from acrn_dm.hypervisors.kvm import probe
from acrn_dm.hypervisors.kvm.vm import KvmVm


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "kvm"
    path.touch()
    return path


def cpuinfo(tmp_path: Path, flags: str) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: vmxish\n")
    return path


@pytest.mark.parametrize("flag", ["vmx", "svm"])
def test_host_with_device_and_flag_is_usable(tmp_path: Path, device: Path, flag: str) -> None:
    assert kvm.probe(device, cpuinfo(tmp_path, f"fpu {flag} sse")) is None


def test_missing_device_is_named(tmp_path: Path) -> None:
    reason = kvm.probe(tmp_path / "none", cpuinfo(tmp_path, "vmx"))
    assert reason is not None
    assert reason.startswith(f"no {tmp_path}/none: load kvm_intel or kvm_amd")


def test_forbidden_device_is_named(tmp_path: Path, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(probe.os, "open", refuse)
    reason = kvm.probe(device, cpuinfo(tmp_path, "vmx"))
    assert reason is not None
    assert reason.startswith("no permission to open")


def test_other_trouble_is_told(tmp_path: Path) -> None:
    assert kvm.probe(tmp_path, cpuinfo(tmp_path, "vmx")) == f"opening {tmp_path}: Is a directory"


def test_host_without_hardware_support_is_a_reason_of_its_own(tmp_path: Path, device: Path) -> None:
    reason = kvm.probe(device, cpuinfo(tmp_path, "fpu svme vmxx"))
    assert reason is not None
    assert "neither vmx nor svm" in reason
    assert "hours" in reason


def test_slow_host_is_refused_unless_allowed(tmp_path: Path, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "DEVICE", device)
    monkeypatch.setattr(probe, "CPUINFO", cpuinfo(tmp_path, "fpu"))
    with pytest.raises(HostError, match="neither vmx nor svm"):
        KvmVm.open()


def test_type_offered_is_kvm_and_ranks_above_the_simulation() -> None:
    (offered,) = kvm.acrn_dm_hypervisor_types()
    assert (offered.name, offered.open, offered.ioapic_pins) == ("kvm", kvm.open_vm, 24)
    assert offered.rank > 0
