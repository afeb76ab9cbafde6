"""ACPI tables, emitted as bytes: no compiler runs when a guest starts."""

from acrn_dm.boot.acpi.build import RSDP_GPA, build_acpi
from acrn_dm.boot.acpi.inputs import AcpiInputs

__all__ = ["RSDP_GPA", "AcpiInputs", "build_acpi"]
