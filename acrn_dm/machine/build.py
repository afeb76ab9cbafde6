"""The parts of a machine: made, given their places, and joined. Nothing is opened (``--dry-run`` stops here)."""

from acrn_dm.base.bus import mmio_bus, pio_bus
from acrn_dm.base.events.clock import REAL, Clock
from acrn_dm.base.events.io_loops import IoLoops
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.boot.files import KeptFiles
from acrn_dm.contract.config import MachineConfig
from acrn_dm.contract.plugins import PluginManager, blame
from acrn_dm.contract.types import Bdf
from acrn_dm.devices.platform import Platform
from acrn_dm.machine.boot_source import BootSource
from acrn_dm.machine.devices import Devices, make_function
from acrn_dm.machine.dispatch import MachineDispatch
from acrn_dm.machine.firmware import FirmwareSupport, make_support, with_chips
from acrn_dm.machine.hypervisor import ChosenHypervisor, find_hypervisor
from acrn_dm.machine.machine import Machine
from acrn_dm.machine.power import Power
from acrn_dm.machine.requests import GuestRequests, PowerButton
from acrn_dm.machine.resolve import resolve_devices
from acrn_dm.machine.triple_fault import TripleFaults
from acrn_dm.management import Standstill
from acrn_dm.memory.guest_memory import MemoryRange, guest_ranges
from acrn_dm.pci.bus import PciBus


def build(config: MachineConfig, plugins: PluginManager, *, threads: bool = True, clock: Clock = REAL) -> Machine:
    """Make all devices, give them addresses and interrupt lines, open nothing. Raises ConfigError, PluginError.

    Without *threads* nothing runs by itself: tests step the loops. *clock* is the machine's: its loops', its devices'.
    """
    files = KeptFiles()
    config = with_chips(config, files)
    bus = PciBus()
    providers: dict[Bdf, str] = {}
    for resolved in resolve_devices(config, plugins):
        owner = str(plugins.provider(resolved.type))
        with blame(f"{owner}: {resolved.spec.kind}"):
            function = make_function(resolved, plugins)
        bus.add(function)
        providers[resolved.spec.bdf] = owner
    bus.assign()
    hypervisor = find_hypervisor(config, plugins)
    bus.route(hypervisor.type.ioapic_pins if hypervisor.type is not None else 24)
    machine = assemble(config, plugins, bus, hypervisor, providers=providers, files=files, threads=threads, clock=clock)
    plugins.observe("acrn_dm_machine_built", machine=machine)
    return machine


def assemble(
    config: MachineConfig,
    plugins: PluginManager,
    bus: PciBus,
    hypervisor: ChosenHypervisor,
    *,
    providers: dict[Bdf, str] | None = None,
    files: KeptFiles | None = None,
    ranges: tuple[MemoryRange, ...] | None = None,
    threads: bool = True,
    clock: Clock = REAL,
) -> Machine:
    """Join the parts that exist before anything is open. *ranges* is RAM that is laid out as no machine's is."""
    files = files or KeptFiles()
    loop = IoLoop("main", clock)
    power = Power(lambda: loop.call_soon(lambda: None))  # an event ends the main loop's wait
    guest = GuestRequests(power, TripleFaults(clock.monotonic))
    button = PowerButton(power, loop, config.shutdown_timeout_s)
    firmware = make_support(config.firmware, files)
    pit = hypervisor.type is not None and hypervisor.type.needs_pit
    platform = make_platform(config, firmware, guest, button, pit=pit, clock=clock)
    platform.pm.on_alarm(power.wake)
    devices = Devices(bus, platform, providers or {})
    return Machine(
        config=config,
        plugins=plugins,
        hypervisor=hypervisor,
        devices=devices,
        boot_source=BootSource(config, devices, files, ranges or guest_ranges(config.memory_bytes)),
        firmware=firmware,
        main_loop=loop,
        io_loops=IoLoops(threads, clock),
        power=power,
        guest=guest,
        button=button,
        standstill=Standstill(loop),
        dispatch=MachineDispatch(pio_bus(), mmio_bus(), bus, guest.vm_event, lambda: power.holds_vcpu),
    )


def make_platform(
    config: MachineConfig,
    firmware: FirmwareSupport,
    guest: GuestRequests,
    button: PowerButton,
    *,
    pit: bool,
    clock: Clock = REAL,
) -> Platform:
    """Make the chips beside the PCI bus: what they ask for is *guest*'s, and they tell the guest of *button*."""
    platform = Platform(
        guest.callbacks(button.press_soon),
        uarts=config.uarts,
        debugexit=config.debugexit,
        fw_cfg=firmware.fw_cfg,
        pit=pit,
        clock=clock,
    )
    guest.acpi_enabled = lambda: platform.pm.acpi_enabled
    button.tell_guest = platform.press_power_button
    return platform
