"""The platform: what a PC has on its ISA bus. Interrupt controllers, timer and port 0x61 are the hypervisor's."""

from acrn_dm.devices.platform.board import Platform, PlatformCallbacks

__all__ = ["Platform", "PlatformCallbacks"]
