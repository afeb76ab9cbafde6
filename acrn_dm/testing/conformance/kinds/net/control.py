"""Rules of the control queue: its format, addresses, announcements (virtio 5.1.6.5)."""

from acrn_dm.testing.conformance.bench import Bench
from acrn_dm.testing.conformance.kinds.demand import world
from acrn_dm.testing.conformance.kinds.net import bits
from acrn_dm.testing.conformance.kinds.net.card import ACK_ERROR, ANNOUNCE, STATUS_AT, Card, card
from acrn_dm.testing.conformance.outside.world import Network
from acrn_dm.testing.conformance.rule import NotApplicable, rule
from acrn_dm.testing.driver import POISON

NET = ("net",)
MAC_ADDR_SET, ANNOUNCE_ACK = (1, 1), (3, 0)
HARMLESS = (  # feature, class, command, data: commands that change nothing
    (bits.MQ, 4, 0, b"\x01\x00"),
    (bits.CTRL_RX, 0, 1, b"\x00"),
    (bits.CTRL_VLAN, 2, 1, b"\x07\x00"),
)


def _a_command(c: Card) -> bytes:
    """Class, number and data of a command that is surely understood. Raises NotApplicable."""
    for feature, group, number, data in HARMLESS:
        if c.driver.features & feature:
            return bytes((group, number)) + data
    if c.driver.features & bits.CTRL_MAC_ADDR:
        return bytes(MAC_ADDR_SET) + c.mac
    raise NotApplicable("no command that changes nothing is offered")


@rule("d.net.ctrl.format", kinds=NET, over=("transport", "interrupts"), needs=("CTRL_VQ",))
def command_means_the_same_however_it_lies(bench: Bench) -> None:
    c = card(bench, want=bits.CTRL_VQ)
    queue, command = c.driver.queue(2 * c.pairs), _a_command(c)
    cuts = [
        [command],
        [command[:2], command[2:]],
        [command[:1], command[1:2], command[2:]],
        [*map(bytes, zip(command))],
    ]
    for parts in cuts:
        for room in ([1], [1, 3]):
            done = queue.transfer(parts, room)
            assert done.data[0] == 0, f"a good command in buffers of {[len(p) for p in parts]} gets {done.data[0]}"
            assert done.written >= 1, "the acknowledgement is not in the used length"
            assert done.data[1:] == bytes([POISON]) * (sum(room) - 1), "more than the acknowledgement is written"
    done = queue.transfer([command[:2]], [1])  # without its data
    assert done.data[0] == ACK_ERROR, f"a command without its data is acknowledged with {done.data[0]}"


@rule("net.ctrl.mac.addr_before_used", kinds=NET, needs=("CTRL_MAC_ADDR", "MAC"))
def address_is_set_when_its_command_is_used(bench: Bench) -> None:
    c = card(bench, want=bits.CTRL_MAC_ADDR | bits.MAC)
    for last in (1, 2):
        mac = bytes((2, 0xAA, 0xBB, 0xCC, 0xDD, last))
        c.must(*MAC_ADDR_SET, mac)
        assert c.mac == mac, f"mac reads {c.mac.hex(':')} after it was set to {mac.hex(':')}"


@rule("net.announce.ack_clears", kinds=NET, needs=("GUEST_ANNOUNCE", "STATUS"))
def acknowledged_announcement_is_over(bench: Bench) -> None:
    c = card(bench, want=bits.GUEST_ANNOUNCE | bits.STATUS)
    world(bench, Network).ask_for_announcement()
    bench.machine.settle()
    assert c.driver.read_config(STATUS_AT, 1)[0] & ANNOUNCE, "status does not ask for an announcement"
    c.must(*ANNOUNCE_ACK)
    assert not c.driver.read_config(STATUS_AT, 1)[0] & ANNOUNCE, "status asks for one that was acknowledged"
