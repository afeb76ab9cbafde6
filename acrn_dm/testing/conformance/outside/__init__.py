"""Worlds beyond devices: what each kind can be asked for, and ready-made ones for the built-in devices."""

from acrn_dm.testing.conformance.outside.world import (
    Frame,
    HostSockets,
    I2cBus,
    Medium,
    Network,
    Operation,
    Outside,
    Person,
    Pressure,
    Terminals,
    Wires,
)

__all__ = [
    "Frame",
    "HostSockets",
    "I2cBus",
    "Medium",
    "Network",
    "Operation",
    "Outside",
    "Person",
    "Pressure",
    "Terminals",
    "Wires",
]
