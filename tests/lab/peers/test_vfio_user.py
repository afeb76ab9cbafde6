"""A PCI function of ours in a newer QEMU, by its client of vfio-user: a stock guest uses its registers, its DMA and its
interrupt, over a reboot of the guest and a new QEMU.
"""

from collections.abc import Callable, Iterator

import attrs
import pytest

from acrn_dm.testing.guest.kernels.debian import Kernel
from acrn_dm.testing.guest.served.machine import vfio_user
from lab.qemu.guest import QemuGuest
from tests.lab.peers.exports import export, started

pytestmark = pytest.mark.lab

FREE = 0x0F00_0000  # memory that the guest's kernel is told to leave alone, so that /dev/mem has it
CARD_MEMORY = 0x4_0000
WORDS = (0x01234567, 0x89ABCDEF, 0xDEADBEEF, 0x00C0FFEE)
SOURCE, TARGET, COUNT, COMMAND = 0x80, 0x88, 0x90, 0x98
TO_CARD, TO_MEMORY = 1, 3


@attrs.define(eq=False)
class Scene:
    """The guest of the QEMU that runs now, and where its kernel has put the card's registers."""

    boot: Callable[[], QemuGuest]
    guest: QemuGuest
    place: str = ""
    base: int = 0

    def find(self) -> None:
        """Where the card is now; nobody has awaited an interrupt of it yet."""
        self.place = self.guest.run("dirname $(grep -l 0x11e8 /sys/bus/pci/devices/*/device)")
        self.base = int(self.guest.run(f"head -n 1 {self.place}/resource").split()[0], 16)
        self.guest.run("echo 1234 11e8 > /sys/bus/pci/drivers/uio_pci_generic/new_id")
        self.guest.run("until [ -c /dev/uio0 ]; do usleep 10000; done")

    def peek(self, address: int) -> int:
        return int(self.guest.run(f"devmem {address:#x} 32"), 16)

    def poke(self, address: int, value: int) -> None:
        self.guest.run(f"devmem {address:#x} 32 {value:#x}")

    def read(self, offset: int) -> int:
        return self.peek(self.base + offset)

    def write(self, offset: int, value: int) -> None:
        self.poke(self.base + offset, value)

    def move(self, source: int, target: int, command: int) -> None:
        """Have the card move the words, and wait until it has."""
        for register, value in ((SOURCE, source), (TARGET, target), (COUNT, 4 * len(WORDS)), (COMMAND, command)):
            self.write(register, value)
        self.guest.run(f"until [ $(( $(devmem {self.base + COMMAND:#x} 32) & 1 )) = 0 ]; do usleep 1000; done", 20)

    def interrupts(self, value: int) -> tuple[str, int, int]:
        """How many the driver has counted after one for *value*, and the status before and after it is acknowledged.

        The driver has disabled the line at the last one.
        """
        self.guest.run(rf"printf '\006\000' | dd of={self.place}/config bs=1 seek=4 conv=notrunc 2> /dev/null")
        self.guest.run(
            "rm -f /tmp/count; dd if=/dev/uio0 of=/tmp/count bs=4 count=1 2> /dev/null & "
            "until ls -l /proc/$!/fd | grep -q uio0; do usleep 10000; done"
        )
        self.write(0x60, value)
        counted = self.guest.run("until [ -s /tmp/count ]; do usleep 10000; done; xxd -p /tmp/count", 20)
        status = self.read(0x24)
        self.write(0x64, value)
        return counted, status, self.read(0x24)


@pytest.fixture(scope="module")
def scene(lab_kernel: Kernel, qemu: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One boot for all tests of this file, and one more by that of a new QEMU."""
    folder = tmp_path_factory.mktemp("vfio-user")
    words = vfio_user("edu", folder)

    def boot() -> QemuGuest:
        return QemuGuest.boot(
            lab_kernel, folder, words, qemu=qemu, modules=["uio_pci_generic"], append=f"memmap=1M${FREE:#x}"
        )

    with started([export(folder, "edu", "edu", protocol="vfio-user")]):
        scene = Scene(boot=boot, guest=boot())
        try:
            yield scene
        finally:
            scene.guest.end()


def assert_card_works(scene: Scene) -> None:
    """Registers, a factorial, words there and back by DMA, and two interrupts by the line."""
    scene.find()
    assert scene.read(0x00) == 0x010000ED
    scene.write(0x04, 0x1234)
    assert scene.read(0x04) == 0xFFFFEDCB
    scene.write(0x08, 10)
    scene.guest.run(f"until [ $(( $(devmem {scene.base + 0x20:#x} 32) & 1 )) = 0 ]; do usleep 1000; done", 20)
    assert scene.read(0x08) == 3628800
    for number, word in enumerate(WORDS):
        scene.poke(FREE + 4 * number, word)
        scene.poke(FREE + 0x1000 + 4 * number, 0)
    scene.move(FREE, CARD_MEMORY, TO_CARD)
    scene.move(CARD_MEMORY, FREE + 0x1000, TO_MEMORY)
    assert tuple(scene.peek(FREE + 0x1000 + 4 * number) for number in range(len(WORDS))) == WORDS
    assert scene.interrupts(0x40) == ("01000000", 0x40, 0)
    assert scene.interrupts(0x80) == ("02000000", 0x80, 0)


def test_card_computes_moves_and_interrupts(scene: Scene) -> None:
    assert_card_works(scene)


def test_guest_that_reboots_finds_the_card_as_after_power_on(scene: Scene) -> None:
    scene.guest.reboot()
    assert_card_works(scene)


def test_new_qemu_finds_the_card_that_the_killed_one_had(scene: Scene) -> None:
    scene.guest.end()
    scene.guest = scene.boot()
    assert_card_works(scene)
