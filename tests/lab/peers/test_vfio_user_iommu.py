"""A PCI function of ours behind the IOMMU of a newer QEMU: a stock vfio-pci maps each page, and takes INTx and MSI."""

import json
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from acrn_dm.testing.guest.inner import python
from acrn_dm.testing.guest.kernels.debian import Kernel
from tests.backends.user.user_rig import Daemon
from tests.lab.peers import edu_guest
from tests.lab.peers.qemu_guest import QemuGuest, export, started, vfio_user

pytestmark = pytest.mark.lab
PROGRAM = "/edu_guest.py"


@attrs.frozen(kw_only=True)
class Scene:
    """The guest, and the process of its device."""

    guest: QemuGuest
    edu: Daemon
    address: str


@pytest.fixture(scope="module")
def scene(lab_kernel: Kernel, qemu: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One boot for all tests of this file."""
    folder = tmp_path_factory.mktemp("vfio-user")
    edu = export(folder, "edu", "edu", protocol="vfio-user")
    with started([edu]):
        guest = QemuGuest.boot(
            lab_kernel,
            folder,
            ["-device", "intel-iommu,caching-mode=on", *vfio_user("edu", folder)],
            board="q35",
            qemu=qemu,
            modules=["vfio_iommu_type1", "vfio-pci"],
            append="intel_iommu=on vfio_iommu_type1.allow_unsafe_interrupts=1",
            files={PROGRAM: Path(edu_guest.__file__).read_bytes()},
            behind=python.archive(),
        )
        try:
            pci = "/sys/bus/pci"
            every = f"for d in {pci}/devices/*; do [ $(cat $d/device) = 0x11e8 ] && echo ${{d##*/}}; done; true"
            address = guest.run(every)
            guest.run(f"echo vfio-pci > {pci}/devices/{address}/driver_override")
            guest.run(f"echo {address} > {pci}/drivers_probe")
            yield Scene(guest=guest, edu=edu, address=address)
        finally:
            guest.end()


@pytest.mark.parametrize("kind", ["intx", "msi"])
def test_card_computes_moves_and_interrupts(scene: Scene, kind: str) -> None:
    """Each time it is opened anew, so that it is reset, and its pages are mapped and unmapped by the IOMMU."""
    said = json.loads(scene.guest.run(f"{python.PROGRAM} -I {PROGRAM} {scene.address} {kind}"))
    assert said["id"] == 0x010000ED
    assert (said["inverse"], said["factorial"]) == (0xFFFFEDCB, 3628800)
    assert said["moved"]
    assert said["interrupts"] == [1, 2, 4, 0]
