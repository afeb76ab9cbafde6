"""Distributions with a plugin each, as pip would leave them in a folder, and their entry points."""

from collections.abc import Iterable
from pathlib import Path

from acrn_dm.base.files.installed import EntryPoint, entry_points

HEAD = """
from acrn_dm import *
from acrn_dm import BackendType, DeviceType, HypervisorType, VirtioDevice, hookimpl, option
import attrs

@attrs.frozen(kw_only=True)
class Options:
    size: int = option(default=1, help="A size.")

class Device(VirtioDevice):
    device_id = 63
    def __init__(self, config, context):
        super().__init__(context)
    def handle_queue(self, queue):
        for chain in queue.pop_batch():
            queue.push(chain)

def device(name="odd", **more):
    return DeviceType(**{"name": name, "summary": "odd", "config": Options, "create": Device, **more})

def backend(name="odd", **more):
    return BackendType(**{"name": name, "summary": "odd", "kinds": ("*",), "create": lambda device: None, **more})

def hypervisor(name="odd", **more):
    given = {"name": name, "summary": "odd", "probe": lambda: "not here", "open": lambda options: None}
    return HypervisorType(**{**given, **more})

def block(name="odd", **more):
    return BlockDriverType(**{"name": name, "summary": "odd", "config": Options, "create": lambda o, c: None, **more})

def packet(name="odd", **more):
    return PacketDriverType(**{"name": name, "summary": "odd", "config": Options, "create": lambda o, c: None, **more})

hook = hookimpl
"""


def install(
    folder: Path,
    name: str,
    source: str,
    *,
    version: str = "4.2",
    target: str = "",
    metadata: bool = True,
    devices: Iterable[str] = (),
) -> None:
    """Put the distribution acrn-dm-*name* with the plugin *name* into *folder*; its module has *source* behind HEAD.
    *devices* are those that its entry points tell of.
    """
    module = f"acrn_dm_{name}"
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(HEAD + source)
    if metadata:
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acrn-dm-{name}\nVersion: {version}\n")
    told = [f"{device} = {target or module}\n" for device in devices]
    (info / "entry_points.txt").write_text(
        f"[acrn_dm]\n{name} = {target or module}\n\n[acrn_dm.devices]\n{''.join(told)}"
    )


def entries(folder: Path, group: str = "acrn_dm") -> list[EntryPoint]:
    """The plugins of the distributions in *folder*, as a start finds them."""
    return entry_points(group, [str(folder)])
