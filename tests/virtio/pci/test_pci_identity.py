"""PCI identity, BARs and capabilities (rows pci.id.*, pci.cap.*, pci.notify.*; 4.1.2, 4.1.4)."""

import pytest

from acrn_dm.base.errors import ConfigError, PluginError
from acrn_dm.contract.types import DeviceContext
from acrn_dm.testing import GuestFunction, SimMachine
from acrn_dm.testing.register_access import Structure, find_structures
from acrn_dm.virtio.device import VirtioDevice
from tests.virtio.parts import SLOT, Echo, ModernOnly, NoConfig, machine_with

VENDOR, DEVICE, REVISION, SUBSYSTEM_VENDOR, SUBSYSTEM = 0x00, 0x02, 0x08, 0x2C, 0x2E
COMMON, NOTIFY, ISR, DEVICE_CFG, PCI_CFG = 1, 2, 3, 4, 5
MSI, MSIX = 0x05, 0x11


@pytest.mark.parametrize(
    ("virtio_id", "pci_id"),
    [(1, 0x1000), (2, 0x1001), (5, 0x1002), (3, 0x1003), (8, 0x1004), (4, 0x1005), (9, 0x1009)],
)
def test_transitional_device_has_the_listed_id_revision_0_and_the_type_as_subsystem(
    virtio_id: int, pci_id: int
) -> None:
    kind = type("Kind", (Echo,), {"device_id": virtio_id, "offers": 0})
    with machine_with(kind) as machine:
        function = machine.function(SLOT)
        assert (function.read(VENDOR, 2), function.read(DEVICE, 2)) == (0x1AF4, pci_id)
        assert (function.read(REVISION, 1), function.read(SUBSYSTEM, 2)) == (0, virtio_id)


def test_modern_device_has_0x1040_plus_type_and_revision_1() -> None:
    with machine_with(ModernOnly) as machine:
        function = machine.function(SLOT)
        assert function.read(DEVICE, 2) == 0x1040 + 18
        assert function.read(REVISION, 1) == 1
        assert function.read(SUBSYSTEM, 2) >= 0x40
        assert function.read(SUBSYSTEM_VENDOR, 2) == 0x1AF4


@pytest.mark.parametrize(("kind", "vendor"), [(Echo, 0x108E), (ModernOnly, 0x108E), (NoConfig, 0x1AF4)])
def test_windows_relabels_the_subsystem_vendor_of_net_blk_and_input(kind: type[Echo], vendor: int) -> None:
    with machine_with(kind, windows=True) as machine:
        assert machine.function(SLOT).read(SUBSYSTEM_VENDOR, 2) == vendor


def test_transitional_bars_are_as_in_the_original() -> None:
    with machine_with() as machine:
        bars = machine.function(SLOT).bars
        assert sorted(bars) == [0, 1, 4]
        assert bars[0].io
        assert bars[0].size == 64  # 24 + 12 bytes, rounded up
        assert (bars[4].size, bars[4].wide) == (0x4000, True)


def test_modern_only_device_has_no_io_bar() -> None:
    with machine_with(ModernOnly) as machine:
        assert sorted(machine.function(SLOT).bars) == [1, 4]


def test_msix_has_a_vector_per_queue_and_one_for_configuration() -> None:
    with machine_with() as machine:
        function = machine.function(SLOT)
        assert function.vectors == 3
        assert function.capability(MSI) is None


def test_virtio_msi_has_one_message_and_no_table() -> None:
    with machine_with(virtio_msi=True) as machine:
        function = machine.function(SLOT)
        assert function.capability(MSIX) is None
        assert function.capability(MSI) is not None
        assert 1 not in function.bars


def _structures(function: GuestFunction) -> dict[int, Structure]:
    return {s.type: s for s in find_structures(function)}


def test_all_structures_are_announced_inside_their_bar_and_aligned() -> None:
    with machine_with() as machine:
        function = machine.function(SLOT)
        found = _structures(function)
        assert sorted(found) == [COMMON, NOTIFY, ISR, DEVICE_CFG, PCI_CFG]
        for kind in (COMMON, NOTIFY, ISR, DEVICE_CFG):
            assert found[kind].offset % 4 == 0
            assert found[kind].offset + found[kind].length <= function.bars[found[kind].bar].size
        assert [found[k].cap_length for k in (COMMON, NOTIFY, ISR, DEVICE_CFG, PCI_CFG)] == [16, 20, 16, 16, 20]
        assert found[COMMON].length >= 0x38


def test_device_without_configuration_space_announces_none() -> None:
    with machine_with(NoConfig) as machine:
        assert DEVICE_CFG not in _structures(machine.function(SLOT))


def test_notify_region_reaches_every_queue() -> None:
    with machine_with(type("Many", (Echo,), {"sizes": (16,) * 40})) as machine:
        driver = machine.driver(SLOT)
        notify = _structures(driver.function)[NOTIFY]
        multiplier = driver.function.read(notify.at + 16, 4)
        assert multiplier == 4
        for index in driver.all_queues():
            assert driver.registers.queue_size(index) == 16
            assert driver.registers.read("queue_notify_off") * multiplier + 2 <= notify.length


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"sizes": (48,)}, "queue size 48"),
        ({"sizes": (65536,)}, "queue size 65536"),
        ({"sizes": ()}, "0 queues"),
        ({"config": bytes(4097)}, "4097 bytes"),
        ({"device_id": 18, "transitional": True}, "no transitional form"),
    ],
)
def test_impossible_device_is_refused_when_built(attributes: dict[str, object], text: str) -> None:
    machine = SimMachine()
    with pytest.raises(PluginError, match=text), machine:
        machine.add(type("Bad", (Echo,), attributes), slot=SLOT)


def test_device_that_offers_a_ring_bit_is_refused_when_realized() -> None:
    with (
        pytest.raises(PluginError, match="EVENT_IDX"),
        machine_with(type("Bad", (Echo,), {"offers": 1 << 29})) as machine,
    ):
        machine.start()


def test_unknown_backend_is_refused_with_the_choices() -> None:
    class Other(Echo):
        backend_name = "vhost-nothing"

    with pytest.raises(ConfigError, match="there are: vbs-u"), SimMachine() as machine:
        machine.add(Other, slot=SLOT)


def test_row_64_two_instances_with_different_parameters_do_not_share_state() -> None:
    """Anchor 64: a static table shared by instances broke the second disk."""

    def sized(*sizes: int) -> type[VirtioDevice]:
        return type("Sized", (Echo,), {"sizes": sizes})

    with SimMachine() as machine:
        machine.add(sized(64), slot=3)
        machine.add(sized(16, 32, 8), slot=4)
        first, second = machine.driver(3), machine.driver(4)
        first.start()
        second.start()
        assert [len(d.all_queues()) for d in (first, second)] == [1, 3]
        assert second.queue(2).transfer([b"abc"], [8]).data[:3] == b"cba"
        assert first.queue(0).transfer([b"xyz"], [8]).data[:3] == b"zyx"


def test_realize_that_fails_lets_close_clean_up() -> None:
    class Broken(Echo):
        def realize(self, resources: object) -> None:
            raise ConfigError("no such image", option="path")

    def make(context: DeviceContext) -> Broken:
        made.append(Broken(context))
        return made[0]

    made: list[Broken] = []
    with pytest.raises(ConfigError), machine_with(make) as machine:
        machine.start()
    assert made[0].calls == ["close"]
