"""A start that waits for another program: whoever wants the guest off need not wait for it."""

import threading
from pathlib import Path

import pytest

from acrn_dm.base.errors import HostError
from acrn_dm.contract.config import DeviceSpec, MachineConfig
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.contract.types import Bdf
from acrn_dm.machine.build import build
from tests.boot.samples import make_bzimage
from tests.patience import comes_true


@pytest.mark.parametrize("role", ["server=on", "wait=on"])
def test_power_button_ends_the_wait_for_a_process(role: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kernel = tmp_path / "bzImage"
    kernel.write_bytes(make_bzimage())
    text = f"socket={tmp_path / 's'},tag=t,{role}"
    device = DeviceSpec(bdf=Bdf(slot=7), kind="virtio-fs", text=text)
    config = MachineConfig(hypervisor="sim", kernel=kernel, devices=(device,))
    machine = build(config, make_plugin_manager(entry_points=False), threads=False)

    def press() -> None:
        assert comes_true(lambda: "waits for the vhost-user back-end" in caplog.text)
        machine.press_power_button()

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(HostError, match="virtio-fs-7:0: vhost-user back-end"):
        machine.realize()
    thread.join()
    machine.close()
    assert not (tmp_path / "s").exists()
