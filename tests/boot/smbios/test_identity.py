"""The UUID that stays."""

from pathlib import Path

from acrn_dm.boot.smbios.identity import lasting_uuid


def test_uuid_is_the_same_at_each_start_and_another_for_each_vm_and_host(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "there").write_text("fedcba9876543210fedcba9876543210\n")
    found = [lasting_uuid(name, tmp_path / host) for name in ("vm1", "vm2") for host in ("here", "there")]
    assert len(set(found)) == 4
    assert lasting_uuid("vm1", tmp_path / "here") == found[0]


def test_host_without_an_id_has_uuids_too(tmp_path: Path) -> None:
    assert lasting_uuid("vm1", tmp_path / "missing") == lasting_uuid("vm1", tmp_path / "missing")
    assert lasting_uuid("vm1", tmp_path / "missing").version == 5
