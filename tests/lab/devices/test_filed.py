"""A function of another process whose registers are in a file in part: a stock guest reaches those without messages,
where its BAR is and while nobody has to see accesses.
"""

from collections.abc import Iterator

import attrs
import pytest

from acrn_dm.base import address_map
from tests.devices.vfio_user.filed_server import AT, PAGE, SIZE
from tests.lab.devices.filed_card import FILED as FILED_PAGES
from tests.lab.devices.filed_card import KEPT, WORD
from tests.lab.devices.packages_scene import ACCESSES, FILED, PAGES, Scene

pytestmark = pytest.mark.lab

MEMORY, MASTER, NO_PIN = 2, 4, 1 << 10
COMMAND, BAR = 0x04, 0x10
ELSEWHERE = address_map.PCI_MMIO32_END - (1 << 20)  # far from what is placed from the window's begin on


@attrs.define(eq=False)
class Card:
    """The function, as root in the guest has it."""

    scene: Scene

    @property
    def place(self) -> str:
        return f"/sys/bus/pci/devices/0000:00:{self.scene.slot(f'vfio-user,socket={FILED}'):02x}.0"

    def configure(self, register: int, value: int, size: int) -> None:
        octets = "".join(f"\\x{octet:02x}" for octet in value.to_bytes(size, "little"))
        write = f"dd of={self.place}/config bs={size} seek={register // size} conv=notrunc 2> /dev/null"
        self.scene.run(f"printf '{octets}' | {write}")

    @property
    def base(self) -> int:
        read = f"dd if={self.place}/config bs=4 skip={BAR // 4} count=1 2> /dev/null | xxd -p"
        return int.from_bytes(bytes.fromhex(self.scene.run(read)), "little") & ~0xF

    def read(self, offset: int) -> int:
        return int(self.scene.run(f"devmem {self.base + offset:#x} 32"), 16)

    def write(self, offset: int, value: int) -> None:
        self.scene.run(f"devmem {self.base + offset:#x} 32 {value:#x}")

    def outside(self, offset: int) -> tuple[int, list[str]]:
        """What the file has there, and what the process was told of since this was asked last."""
        word = f"dd if={PAGES} bs=1 skip={AT + offset} count=4 2> /dev/null | xxd -p"
        first, *told = self.scene.outside("sh", "-c", f"{word}; cat {ACCESSES}; : > {ACCESSES}").splitlines()
        return int.from_bytes(bytes.fromhex(first), "little"), told


@pytest.fixture
def card(scene: Scene) -> Iterator[Card]:
    """Its driver, which there is none of, takes no interrupts by the pin."""
    card = Card(scene)
    base = card.base
    card.configure(COMMAND, MEMORY | MASTER | NO_PIN, 2)
    card.outside(0)
    yield card
    card.configure(BAR, base, 4)
    card.configure(COMMAND, MEMORY | MASTER, 2)


def assert_without_messages(card: Card, page: int, value: int) -> None:
    """The guest reads what is in the file of that page, and what it writes is there, and nobody is told."""
    word = page * PAGE + WORD
    assert card.read(word) == KEPT + page
    card.write(word + 4, value)
    assert card.read(word + 4) == value
    assert card.outside(word + 4) == (value, [])


def assert_by_messages(card: Card, page: int, value: int) -> None:
    """The process is told of each access, and the file stays as it is."""
    word = page * PAGE + WORD
    card.write(word, value)
    assert card.read(word) == value
    assert card.outside(word) == (KEPT + page, [f"write {word:#x}", f"read {word:#x}"])


def test_pages_in_the_file_are_reached_without_messages_and_those_between_by_them(card: Card) -> None:
    for page in range(SIZE // PAGE):
        (assert_without_messages if page in FILED_PAGES else assert_by_messages)(card, page, 0xA5A5_0000 + page)


def test_pages_are_where_the_bar_is(card: Card) -> None:
    old = card.base
    card.configure(BAR, ELSEWHERE, 4)
    assert_without_messages(card, FILED_PAGES[0], 1)
    assert card.scene.run(f"devmem {old + WORD:#x} 32") == "0xFFFFFFFF"
    card.configure(COMMAND, MASTER | NO_PIN, 2)
    assert card.read(WORD) == 0xFFFF_FFFF
    card.configure(COMMAND, MEMORY | MASTER | NO_PIN, 2)
    assert_without_messages(card, FILED_PAGES[1], 2)


def test_all_are_messages_while_the_pin_may_be_in_use(card: Card) -> None:
    """What it asks for is over when the guest has looked, which has to be seen."""
    page = FILED_PAGES[0]
    assert_without_messages(card, page, 3)
    card.configure(COMMAND, MEMORY | MASTER, 2)
    assert_by_messages(card, page, 4)
    card.configure(COMMAND, MEMORY | MASTER | NO_PIN, 2)
    assert_without_messages(card, page, 5)
