"""The strict check: each clause seen broken by a driver that breaks it and no other, and no alarm for good drivers."""

import logging
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.memory.guest_memory import MIB
from acrn_dm.pci.function import PciFunction
from acrn_dm.ring.split_rules import SplitRules
from acrn_dm.testing import SimMachine, VirtioDriver, VirtualClock
from acrn_dm.testing.register_access import ModernRegisters
from acrn_dm.virtio.strict.clauses import CLAUSES
from tests.ring.packed.test_rules import BREAKS as PACKED_BREAKS
from tests.virtio.parts import SLOT, Echo, Holding, machine_with
from tests.virtio.pause import pause, resume
from tests.virtio.strict.breaking_drivers import BREAKS, RAM


class Card(Holding):
    """Offers a feature that requires another, and holds what it is given."""

    device_id = 1
    offers = 1 << 0 | 1 << 11  # CSUM, HOST_TSO4


class Straight(Echo):
    """Returns chains in order, and says so."""

    in_order = True


def broken(machine: SimMachine) -> list[str]:
    return [violation.clause.id for violation in machine.take_violations()]


def test_each_clause_has_a_driver_that_breaks_it() -> None:
    assert BREAKS.keys() | PACKED_BREAKS.keys() == CLAUSES.keys()


@pytest.mark.parametrize("clause", BREAKS)
def test_clause_that_a_driver_breaks_is_named_and_no_other(clause: str) -> None:
    device: type[Echo] = Card if clause in ("features.requires", "desc.altered", "desc.in_flight") else Straight
    with machine_with(device, strict=True, memory=128 * MIB) as machine:  # for a chain of 4 GiB
        BREAKS[clause](machine.driver(SLOT))
        machine.settle()
        assert set(broken(machine)) == {clause}


@pytest.mark.parametrize("sent", [[b"one"], []])
def test_chain_that_comes_between_the_look_and_the_taking_is_served_without_alarm(
    sent: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen with a stock kernel: it was returned unseen, and looked at when its descriptors were another chain's."""
    with machine_with(strict=True) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        queue, look, late = driver.queue(0), SplitRules._look, [b"late"]

        def look_and_let_one_come(rules: SplitRules) -> None:
            look(rules)
            if late:
                queue.send([late.pop()], [4])

        monkeypatch.setattr(SplitRules, "_look", look_and_let_one_come)
        for text in sent:
            queue.send([text], [4])
        driver.notify(0)
        machine.settle()
        assert [c.data[: c.written] for c in queue.completed()] == [text[::-1] for text in [*sent, b"late"]]
        for _ in range(3):
            assert queue.transfer([b"next"], [4]).data == b"txen"
        assert broken(machine) == []


@pytest.mark.parametrize("features", [None, 0, 1 << 28, 1 << 29, 1 << 35])
@pytest.mark.parametrize("msix", [True, False])
def test_good_driver_raises_no_alarm(features: int | None, msix: bool) -> None:
    with machine_with(Straight, strict=True) as machine:
        driver = machine.driver(SLOT, msix=msix)
        for _ in range(2):
            driver.start(features)
            for n in range(70):  # once around the ring
                indirect = bool(driver.features & 1 << 28 and n % 2)
                driver.queue(0).transfer([b"out", b"more"], [3, 4], indirect=indirect)
            driver.read_config(0, 12)
        driver.reset()
        assert broken(machine) == []


def test_good_legacy_driver_raises_no_alarm() -> None:
    with machine_with(strict=True) as machine:
        driver = machine.driver_legacy(SLOT)
        for _ in range(2):
            driver.start()
            driver.read_config(0, 12)
            driver.queue(0).transfer([b"out"], [3])
        assert broken(machine) == []


def test_legacy_driver_that_accepts_what_it_was_not_offered_is_told() -> None:
    with machine_with(strict=True) as machine:
        driver = machine.driver_legacy(SLOT)
        driver.reset()
        driver.registers.accept(1 << 3)
        assert broken(machine) == ["features.offered"]


@pytest.mark.parametrize("poll_ns", [None, 500_000])
def test_pause_between_requests_raises_no_alarm(poll_ns: int | None) -> None:
    with machine_with(strict=True, poll_ns=poll_ns, clock=VirtualClock()) as machine:
        driver = machine.driver(SLOT)
        driver.start(0)  # without event index: the used ring's flags say whether kicks are wanted
        for _ in range(3):
            pause(machine.bus.functions[0])
            resume(machine.bus.functions[0])
            driver.queue(0).send([b"out"], [3])
            driver.queue(0).kick()
            machine.advance(0.001)
            assert len(driver.queue(0).completed()) == 1
        assert broken(machine) == []


def test_table_as_large_as_memory_costs_no_more_than_a_chain_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    with machine_with(strict=True, memory=16 * MIB) as machine:
        driver = machine.driver(SLOT)
        driver.start(1 << 28)
        row = (RAM).to_bytes(8, "little") + (1).to_bytes(4, "little") + (1).to_bytes(2, "little")
        at = 8 * MIB
        machine.memory.write(at, b"".join(row + (n + 1).to_bytes(2, "little") for n in range(4096)))
        monkeypatch.setattr(SplitRules, "_read", counting(SplitRules._read, reads))
        driver.queue(0).ring.write_desc(0, at, 4096 * 16, 4, 0)
        driver.queue(0).ring.make_available(0)
        driver.queue(0).ring.publish()
        driver.notify(0)
        machine.settle()
        assert broken(machine) == ["indirect.too_long"]
        assert len(reads) < 4 * 65


def counting(read: Callable[..., object], reads: list[int]) -> Callable[..., object]:
    def counted(*args: object) -> object:
        reads.append(1)
        return read(*args)

    return counted


class Stuck(Holding):
    """Its reset takes until the host lets go."""

    busy = False

    def cancel(self) -> None:
        self.busy = True


def test_driver_that_reads_the_status_and_does_not_wait_for_0_is_told() -> None:
    with machine_with(Stuck, strict=True) as machine:
        driver = machine.driver(SLOT)
        driver.start()
        driver.status = 0
        assert driver.status
        driver.status = 1
        machine.device(SLOT, Stuck).busy = False
        assert driver.status == 0
        driver.status = 1
        assert broken(machine) == ["reset.wait"]


def linux(registers: ModernRegisters, driver: VirtioDriver) -> None:
    """The register accesses of Linux 6.1 (virtio_pci_modern.c, virtio.c) that probes a disk, in their order."""
    read, write = registers.read, registers.write
    write("device_status", 0)
    while read("device_status"):
        pass
    for status in (1, 3):
        write("device_status", read("device_status") | status)
    offered = registers.offered()
    write("driver_feature_select", 0)
    write("driver_feature", offered & 0xFFFF_FFFF)
    write("driver_feature_select", 1)
    write("driver_feature", offered >> 32 & 0xFFFF_FFFF)
    read("device_status")
    write("device_status", read("device_status") | 8)
    assert read("device_status") & 8
    read("config_generation")  # the capacity, by __virtio_cread_many
    registers.read_config(0, 4)
    registers.read_config(4, 4)
    read("config_generation")
    registers.read_config(8, 4)
    write("config_msix_vector", 0)
    read("config_msix_vector")
    driver.features = offered & (1 << 64) - 1
    assert read("num_queues") == 2
    for index in range(2):
        write("queue_select", index)
        assert not read("queue_enable")
        driver.setup_queue(index)
    write("device_status", read("device_status") | 4)


def test_linux_like_session_raises_no_alarm() -> None:
    with machine_with(strict=True) as machine:
        driver = machine.driver(SLOT)
        assert isinstance(driver.registers, ModernRegisters)
        linux(driver.registers, driver)
        for size in (1, 100, 4096):
            driver.queue(0).transfer([struct.pack("<IIQ", 0, 0, 7), bytes(size)], [size, 1], indirect=True)
        driver.queue(1).set_quiet(True)
        driver.queue(1).transfer([b"a"])
        assert driver.status & 4
        driver.reset()
        assert broken(machine) == []


def test_violations_that_nobody_took_fail_at_the_machines_end() -> None:
    machine = machine_with(strict=True)
    machine.driver(SLOT).status = 1
    with pytest.raises(AssertionError, match=r"3:0: begins without a reset: status\.reset_first \(virtio 1\.4, 3"):
        machine.close()


def test_each_clause_is_logged_once_with_device_queue_and_section(caplog: pytest.LogCaptureFixture) -> None:
    with machine_with(strict=True) as machine, caplog.at_level(logging.WARNING):
        driver = machine.driver(SLOT)
        driver.start(0)
        for _ in range(2):
            driver.queue(0).ring.set_avail_idx(65)
            driver.notify(0)
            machine.settle()
            driver.start(0)
        assert broken(machine) == ["avail.too_many"] * 2
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("strict")]
    assert line.startswith(
        "strict: device-3:0 queue 0: 65 chains of a queue of 64: avail.too_many (virtio 1.4, 2.7.6: "
    )


@pytest.mark.parametrize("value", ["on", "off", True])
def test_option_of_a_device_switches_its_check(value: str | bool, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(4096))
    path = f"{tmp_path}/disk"
    with SimMachine() as machine:
        table = {"path": path, "strict": value}
        machine.add("virtio-blk", table if value is True else f"{path},strict={value}", slot=SLOT)
        machine.add(Echo, slot=4)
        for slot in (SLOT, 4):
            machine.driver(slot).status = 1
        assert [v.device for v in machine.take_violations()] == ([] if value == "off" else ["virtio-blk-3:0"])


@pytest.mark.parametrize("text", ["strict=yes", "strict=on,strict=on"])
def test_option_that_is_neither_on_nor_off_is_refused(text: str) -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match="strict"):
        machine.add("virtio-console", text, slot=SLOT)


def test_option_is_none_of_a_function_that_is_not_virtio() -> None:
    with SimMachine() as machine, pytest.raises(ConfigError, match="no virtio device"):
        machine.add("hostbridge", "strict=on", slot=SLOT)


def test_without_it_accesses_and_rings_are_not_watched() -> None:
    with machine_with() as machine:
        driver = machine.driver(SLOT)
        driver.start()
        function = machine.bus.functions[0]
        assert isinstance(function, PciFunction)
        assert type(function.bars[4].handler).__name__ == "ModernBar"
        assert type(machine.device(SLOT, Echo).queues[0].ring).__name__ == "SplitRing"
