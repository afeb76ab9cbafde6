"""The platform: what a PC has on its ISA bus. Interrupt controllers are the hypervisor's; so is KVM's timer."""

from acrn_dm.devices.platform.board import Platform, PlatformCallbacks

__all__ = ["Platform", "PlatformCallbacks"]
