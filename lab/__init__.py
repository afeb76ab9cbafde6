"""The lab: an emulated machine whose kernel has a real /dev/kvm, vhost and tap for acrn-dm to run on.

QEMU in software emulation boots a stock Debian kernel (the *outer* VM) on this host's own file tree, mounted read-only
over 9p. acrn-dm runs in there and boots a second stock kernel (the *inner* guest).

    paths.py   the only module that knows the checkout: where it is, and where the lab keeps its things
    command_line.py  what the kernels are told
    qemu.py    one QEMU process's life; consoles.py has the logs of what boots
    kernels/   Debian's kernel packages, fetched without installing them
    images/    what goes into an initramfs, and a disk that firmware boots from
    outer/     the outer VM: OuterVm runs commands in it through agent.py
    guest/     the inner guest: its initramfs, a shell in it, its kernel log, the same guest under plain QEMU
    demo/      the demonstration: `python -m lab.demo`
    hsm/       the emulated kernel module: a preloaded C library that answers /dev/acrn_hsm

Each imports those above it and never tests. Whoever boots a guest may say which program is to run it, so that all but
demo/ and hsm/ can serve any device model.
"""
