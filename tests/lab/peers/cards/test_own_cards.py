"""Cards of ours with several queue pairs, on taps, in a newer QEMU: what a stock driver's ethtool finds and sets."""

import sys

import pytest

from tests.lab.peers.cards.cards_scene import OWN, STEERED, Scene
from tests.lab.wired import CARRIED, Link

pytestmark = pytest.mark.lab


def fields(text: str) -> dict[str, str]:
    """``name: value`` of each line, the last of a name."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def both_ways(scene: Scene, link: Link, *arguments: str) -> None:
    report = scene.iperf("--bidir", *arguments, seconds=1, link=link)
    moved = {way: report["end"][way]["bytes"] for way in ("sum_sent", "sum_received_bidir_reverse")}
    print(link.card, moved, file=sys.stderr)
    assert min(moved.values()) > CARRIED


def test_card_has_what_its_options_say_and_does_what_ethtool_asks(scene: Scene) -> None:
    run, card = scene.run, OWN.card
    scene.connect(OWN)
    shown = fields(run(f"ethtool {card}"))
    assert (shown["Speed"], shown["Duplex"], shown["Link detected"]) == ("25000Mb/s", "Full", "yes")
    assert run(f"cat /sys/class/net/{card}/mtu").strip() == "9000"
    assert "refused" in run(f"ip link set {card} mtu 9001 2> /dev/null || echo refused")
    assert fields(run(f"ethtool -l {card} | sed '/Current/,$d'"))["Combined"] == "2"
    features = fields(run(f"ethtool -k {card}"))
    for name in ("rx-checksumming", "tx-checksumming", "scatter-gather", "tcp-segmentation-offload"):
        assert features[name].startswith("on"), name
    assert {fields(run(f"ethtool -c {card}"))[name] for name in ("rx-usecs", "tx-usecs")} == {"0"}
    run(f"ethtool -C {card} rx-usecs 200 rx-frames 16 tx-usecs 100 tx-frames 8")
    coalescing = fields(run(f"ethtool -c {card}"))
    assert [coalescing[name] for name in ("rx-usecs", "rx-frames", "tx-usecs", "tx-frames")] == [
        "200",
        "16",
        "100",
        "8",
    ]
    run(f"ethtool -L {card} combined 2")
    assert "5 packets received" in scene.ping(link=OWN)
    both_ways(scene, OWN)


@pytest.mark.parametrize(
    ("link", "packed", "sizes"), [(OWN, "1", (200, 96)), (STEERED, "0", (128, 64))], ids=["packed", "split"]
)
def test_driver_makes_its_rings_smaller_and_larger_and_frames_pass_on(
    scene: Scene, link: Link, packed: str, sizes: tuple[int, int]
) -> None:
    run, card = scene.run, link.card
    scene.connect(link)
    assert run(f"cut -c 35 /sys/class/net/{card}/device/features").strip() == packed
    largest = rings(scene, card, "Pre-set")
    assert rings(scene, card, "Current") == largest
    for rx, tx in (sizes, largest):
        run(f"ethtool -G {card} rx {rx} tx {tx}")
        assert rings(scene, card, "Current") == (rx, tx)
        assert "5 packets received" in scene.ping(link=link)
        both_ways(scene, link)
    assert "refused" in run(f"ethtool -G {card} rx {2 * largest[0]} 2> /dev/null || echo refused")
    assert "needs a reset" not in scene.log.read_text()


def rings(scene: Scene, card: str, which: str) -> tuple[int, int]:
    """Sizes of the rings for receiving and sending, as ``ethtool -g`` has them below that word."""
    shown = fields(scene.run(f"ethtool -g {card}").split("Current")[which == "Current"])
    return int(shown["RX"]), int(shown["TX"])


def test_driver_steers_by_its_table(scene: Scene) -> None:
    run, card = scene.run, STEERED.card
    scene.connect(STEERED)
    run(f"ethtool -L {card} combined 2 && ethtool -X {card} equal 2")
    table = run(f"ethtool -x {card}")
    assert "RSS hash key:" in table
    assert "0     1     0     1" in table
    received = [sum(scene.interrupts(f"{name}-input.{n}")) for name in [virtio_name(scene, card)] for n in (0, 1)]
    both_ways(scene, STEERED, "-P", "8")
    now = [sum(scene.interrupts(f"{name}-input.{n}")) for name in [virtio_name(scene, card)] for n in (0, 1)]
    assert all(b > a for a, b in zip(received, now, strict=True)), "both queues are used"
    run(f"ethtool -X {card} weight 1 0")
    assert "5 packets received" in scene.ping(link=STEERED)


def virtio_name(scene: Scene, card: str) -> str:
    """``virtioN`` of the card, as its interrupts are called."""
    return scene.run(f"basename $(readlink /sys/class/net/{card}/device)").strip()
