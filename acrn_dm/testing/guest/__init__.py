"""Guests in a stock Debian kernel, for tests that want to see a device with the driver that it is made for.

acrn-dm needs KVM. Where this host has none that is fit for it, QEMU in software emulation boots a stock kernel (the
*outer* VM) on this host's own file tree, mounted read-only over 9p; acrn-dm runs in there and boots a second stock
kernel (the *inner* guest).

    guest.py   Guest: what a test has of a guest that is up; guests.py makes them and keeps what they share
    fixture.py the pytest fixture dm_guest
    needs.py   what this host lacks, in a line
    places.py  where files are kept; errors.py says what can go wrong, progress.py tells of what lasts
    process.py processes where acrn-dm runs; host.py starts them on this host
    command_line.py  what the kernels are told
    qemu.py    one QEMU process's life; consoles.py has the logs of what boots
    kernels/   Debian's kernel packages, fetched without installing them
    images/    what goes into an initramfs
    outer/     the outer VM: OuterVm runs commands in it through agent.py
    inner/     the inner guest: its initramfs with a Python, and a shell in it
    served/    a guest of QEMU's, without acrn-dm's machine: a process of acrn-dm serves it its devices

Packages, kernels and images are kept in $ACRN_DM_CACHE, by default acrn-dm in the user's cache.
"""

from acrn_dm.testing.guest.errors import CommandFailed, HarnessError, HarnessTimeout, HarnessUnavailable
from acrn_dm.testing.guest.guest import Guest
from acrn_dm.testing.guest.guests import Guests

__all__ = ["CommandFailed", "Guest", "Guests", "HarnessError", "HarnessTimeout", "HarnessUnavailable"]
