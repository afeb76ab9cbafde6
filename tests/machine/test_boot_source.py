"""What the guest is told of the machine that boots it."""

from pathlib import Path
from uuid import UUID

import pytest

from acrn_dm.boot.smbios.identity import lasting_uuid
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.plugins import make_plugin_manager
from acrn_dm.machine.build import build


@pytest.mark.parametrize("given", [None, UUID(int=7)])
def test_guest_has_the_uuid_it_is_given_or_one_that_its_name_makes(given: UUID | None, tmp_path: Path) -> None:
    config = MachineConfig(name="vm7", uuid=given, hypervisor="sim", kernel=tmp_path / "kernel")
    identity = build(config, make_plugin_manager(entry_points=False)).boot_source.plan().identity
    assert identity is not None
    assert (identity.name, identity.uuid) == ("vm7", given or lasting_uuid("vm7"))
