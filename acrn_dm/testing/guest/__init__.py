"""Guests in a stock Debian kernel, for tests that want to see a device with the driver that it is made for.

acrn-dm needs KVM. Where this host has none that is fit for it, QEMU in software emulation boots a stock kernel (the
*outer* VM) on this host's own file tree, mounted read-only over 9p; acrn-dm runs in there and boots a second stock
kernel (the *inner* guest).

    places.py  where files are kept; errors.py says what can go wrong
    command_line.py  what the kernels are told
    qemu.py    one QEMU process's life; consoles.py has the logs of what boots
    kernels/   Debian's kernel packages, fetched without installing them
    images/    what goes into an initramfs
    outer/     the outer VM: OuterVm runs commands in it through agent.py
    inner/     the inner guest: its initramfs, and a shell in it

Each imports those above it.
"""
