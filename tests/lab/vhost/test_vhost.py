"""Kernel vhost in the lab: the outer VM's real /dev/vhost-net and /dev/vhost-vsock under a stock guest."""

import hashlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.processes import processes
from tests.lab.stemmed import PLAIN
from tests.lab.vhost.vhost_scene import CARD_SLOT, ONE_PAIR, TWO_PAIRS, VSOCK_MODULES, Scene
from tests.lab.wired import CARRIED

pytestmark = pytest.mark.lab

FLIPS_S = 15
SILENCE_S = 7.0  # two emulated machines on a busy host may rest for seconds; after a lost interrupt the rest is silence
TRANSFER_MIB, AGAIN_MIB = 16, 4  # 64 and 16 times what one end takes before the other has read
VSOCK_SERVER = """
import hashlib, socket, sys
with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as server:
    server.bind((socket.VMADDR_CID_ANY, int(sys.argv[1])))
    server.listen(1)
    print("listening", flush=True)
    data = bytearray()
    with server.accept()[0] as one:
        while piece := one.recv(1 << 18):
            data += piece
    print(len(data), hashlib.sha256(data).hexdigest(), flush=True)
    with server.accept()[0] as other:
        other.sendall(data)
"""


def test_guest_pings_and_neither_kick_nor_interrupt_comes_to_the_device_model(scene: Scene) -> None:
    scene.ping()
    before, kicks, calls = scene.sample(), scene.probe("kick"), scene.probe("call")
    received = sum(scene.interrupts("virtio1-input"))
    assert "20 packets received" in scene.ping(20)
    after = scene.sample()
    assert scene.probe("kick") - kicks >= 20
    assert scene.probe("call") - calls >= 20
    assert sum(scene.interrupts("virtio1-input")) - received >= 20
    # The console of these very commands works by eventfds, too.
    assert after.notify == before.notify
    assert after.inject_msi == before.inject_msi
    assert after.set_irq_line == before.set_irq_line


def test_all_of_it_is_seen_in_a_sandbox_beside_a_broker(scene: Scene) -> None:
    machine, found = scene.sample().pid, processes(scene.vm)
    assert found[machine].confined
    assert [seen.confined for seen in found.values() if int(seen.status["PPid"]) == machine] == [False]


def test_rings_are_resized_while_the_guest_runs(scene: Scene) -> None:
    """Its driver resets one queue after the other (RING_RESET) and gives each a ring of another size."""
    for rx, tx in ((128, 64), (1024, 256), (256, 1024)):
        scene.shell.run(f"ethtool -G eth0 rx {rx} tx {tx}")
        assert (
            f"{rx} {tx}"
            == scene.shell.run("ethtool -g eth0 | awk '/RX:|TX:/ {print $2}' | tail -2").replace("\n", " ").strip()
        )
        assert "5 packets received" in scene.ping()


def test_segmentation_offload_is_on(scene: Scene) -> None:
    features = dict(line.split(": ", 1) for line in scene.shell.run("ethtool -k eth0").splitlines() if ": " in line)
    features = {name.strip(): value for name, value in features.items()}
    for name in (
        *("rx-checksumming", "tx-checksumming", "scatter-gather", "tcp-segmentation-offload"),
        *("tx-tcp-segmentation", "tx-tcp6-segmentation", "generic-segmentation-offload"),
    ):
        assert features[name].startswith("on"), (name, features[name])


def test_device_model_rests_during_ten_seconds_of_traffic_in_both_directions(scene: Scene) -> None:
    scene.sample()  # the gauge's own code is loaded now, over 9p
    before, kicks, calls = scene.sample(), scene.probe("kick"), scene.probe("call")
    report = scene.iperf("--bidir")
    after = scene.sample()
    seconds = after.at - before.at
    own = {n: t - before.threads.get(n, 0) for n, t in after.threads.items() if not n.startswith("vcpu")}
    used = sum(own.values()) / 1e9 / seconds
    moved = {way: report["end"][way]["bytes"] for way in ("sum_sent", "sum_received_bidir_reverse")}
    print(f"{moved}, {seconds:.1f} s, {100 * used:.2f} % of a CPU: {own}", file=sys.stderr)
    print(f"{scene.probe('kick') - kicks} kicks, {scene.probe('call') - calls} calls", file=sys.stderr)
    assert min(moved.values()) > CARRIED
    assert scene.probe("kick") > kicks
    assert scene.probe("call") > calls
    assert after.notify == before.notify
    assert after.inject_msi == before.inject_msi
    assert used < 0.02, own


def transfer(scene: Scene, port: int, mib: int = TRANSFER_MIB) -> None:
    """Guest to host and back; equal at each stop."""
    server = scene.vm.spawn([*PLAIN, VSOCK_SERVER, str(port)])
    server.wait_for("listening")
    scene.shell.run(f"yes {port} | head -c {mib << 20} > /tmp/data")
    digest = scene.shell.run("sha256sum < /tmp/data").split()[0]
    scene.shell.run(f"socat -u OPEN:/tmp/data VSOCK-CONNECT:2:{port}", 120)
    server.wait_for("\n", 60)
    scene.shell.run(f"socat -u VSOCK-CONNECT:2:{port} CREATE:/tmp/back", 120)
    back = scene.shell.run("sha256sum < /tmp/back").split()[0]
    scene.shell.run("rm /tmp/data /tmp/back")
    size, there = server.wait(60).stdout.split()[1:3]
    pattern = f"{port}\n".encode()
    whole = (pattern * ((mib << 20) // len(pattern) + 1))[: mib << 20]
    assert size == str(mib << 20)
    assert digest == there == back == hashlib.sha256(whole).hexdigest()


def test_vsock_carries_16_mib_there_and_back_and_again_after_the_driver_was_reloaded(scene: Scene) -> None:
    transfer(scene, 5001)
    for _ in range(2):
        scene.shell.run(f"rmmod {' '.join(VSOCK_MODULES)}")
        scene.shell.run(" && ".join(f"insmod /modules/{module}.ko" for module in reversed(VSOCK_MODULES)))
    transfer(scene, 5002, AGAIN_MIB)


def test_cards_work_again_after_their_driver_was_reloaded(scene: Scene) -> None:
    for _ in range(3):
        scene.shell.run("rmmod virtio_net && insmod /modules/virtio_net.ko")
        for link in (ONE_PAIR, TWO_PAIRS):
            scene.connect(link)
            assert "5 packets received" in scene.ping(link=link)


def longest_silence(intervals: list[dict[str, Any]]) -> float:
    """Seconds in a row without a byte."""
    longest = silent = 0.0
    for interval in intervals:
        silent = 0.0 if interval["bytes"] else silent + interval["seconds"]
        longest = max(longest, silent)
    return longest


def test_interrupts_that_move_between_cpus_under_traffic_are_neither_lost_nor_misdirected(scene: Scene) -> None:
    # A turn counts if the kernel took both writes.
    flip = (
        "end=$(($(date +%s) + {seconds})); n=0; while [ $(date +%s) -lt $end ]; do taken=1;"
        " for i in {irqs}; do echo $((1 + n % 2)) > /proc/irq/$i/smp_affinity || taken=0; done;"
        " n=$((n + taken)); done; echo $n > /tmp/flips"
    )
    irqs = scene.shell.run("grep virtio1-.*put /proc/interrupts | cut -d: -f1").split()
    assert len(irqs) == 2
    scene.shell.run("dmesg -c > /dev/null")
    before = scene.sample()
    taken = {name: scene.interrupts(name) for name in ("virtio1-input", "virtio1-output")}
    scene.shell.run(f"( {flip.format(seconds=FLIPS_S, irqs=' '.join(irqs))} ) &")
    report = scene.iperf("--bidir", seconds=FLIPS_S)
    scene.shell.run("wait")
    flips, bindings = int(scene.shell.run("cat /tmp/flips")), scene.sample().irqfd - before.irqfd
    by_cpu = {n: [b - a for a, b in zip(was, scene.interrupts(n), strict=True)] for n, was in taken.items()}
    silences = {way: longest_silence([i[way] for i in report["intervals"]]) for way in ("sum", "sum_bidir_reverse")}
    moved = report["end"]["sum_sent"]["bytes"]
    print(f"{flips} flips, {bindings} bindings, by CPU {by_cpu}, {moved} bytes, silences {silences}", file=sys.stderr)
    assert flips > 20
    assert bindings > 2 * 20  # the table's entry was rewritten, and the eventfd followed it
    assert min(by_cpu["virtio1-input"]) > 20, by_cpu
    assert min(by_cpu["virtio1-output"]) > 0, by_cpu
    assert max(silences.values()) < SILENCE_S, silences
    kernel_log = scene.shell.run("dmesg")
    for complaint in ("No irq handler", "nobody cared", "NETDEV WATCHDOG", "spurious"):
        assert complaint not in kernel_log
    assert "20 packets received" in scene.ping(20)


def test_two_queue_pairs_carry_traffic_at_once(scene: Scene) -> None:
    assert "5 packets received" in scene.ping(link=TWO_PAIRS)
    scene.shell.run(f"ethtool -L {TWO_PAIRS.card} combined 2")
    scene.sample()
    before = scene.sample()
    report = scene.iperf("-P", "8", "--bidir", seconds=3, link=TWO_PAIRS)
    after = scene.sample()
    assert min(report["end"][way]["bytes"] for way in ("sum_sent", "sum_received_bidir_reverse")) > CARRIED
    taken = {name: sum(scene.interrupts(name)) for name in ("virtio2-input.0", "virtio2-input.1")}
    print(taken, file=sys.stderr)
    assert min(taken.values()) > 0, "both pairs are used"
    assert (after.notify, after.inject_msi) == (before.notify, before.inject_msi)
    scene.shell.run(f"ethtool -L {TWO_PAIRS.card} combined 1")
    assert "5 packets received" in scene.ping(link=TWO_PAIRS)


def test_guest_that_reboots_finds_card_and_vsock_working(scene: Scene) -> None:
    scene.shell.reboot()
    for link in (ONE_PAIR, TWO_PAIRS):
        scene.connect(link)
        assert "5 packets received" in scene.ping(link=link)
    transfer(scene, 5003, AGAIN_MIB)


@pytest.fixture
def line(scene: Scene) -> Iterator[None]:
    """The card of one pair has a driver that may not take messages, as if the guest's kernel knew none (pci=nomsi)."""
    take_driver_anew(scene, messages=False)
    yield
    take_driver_anew(scene, messages=True)


def take_driver_anew(scene: Scene, *, messages: bool) -> None:
    """Of that card's slot."""
    card = f"0000:00:{CARD_SLOT:02x}.0"
    place = f"/sys/bus/pci/devices/{card}"
    scene.shell.run(f"driver=$(readlink -f {place}/driver) && echo {card} > $driver/unbind")
    scene.shell.run(f"echo {messages:d} > {place}/msi_bus && echo {card} > $driver/bind")
    scene.connect()


def test_card_that_has_no_messages_is_interrupted_by_the_line(scene: Scene, line: None) -> None:
    before = scene.sample()
    assert "20 packets received" in scene.ping(20)
    after = scene.sample()
    assert after.set_irq_line - before.set_irq_line >= 20
    assert after.inject_msi == before.inject_msi
    assert after.notify == before.notify, "kicks do not depend on the kind of interrupt"
    assert scene.iperf(seconds=3)["end"]["sum_received"]["bytes"] > CARRIED
