"""SMBIOS tables: what a guest reads about the machine it is in."""

from acrn_dm.boot.smbios.build import Smbios, build_smbios
from acrn_dm.boot.smbios.identity import Identity

__all__ = ("Identity", "Smbios", "build_smbios")
