"""The lab: a machine whose kernel has a real /dev/kvm, vhost and tap for acrn-dm to run on, and what runs there.

What boots it, the outer VM in software emulation, is acrn_dm.testing.guest, which tests of plugins use, too.

    paths.py   the only module that knows the checkout: where it is, and where the lab keeps its things
    images/    a disk that firmware boots from, and one that has a root file system
    guest/     the kernel log of a guest, and the same guest under plain QEMU
    demo/      the demonstration: `python -m lab.demo`
    hsm/       the emulated kernel module: a preloaded C library that answers /dev/acrn_hsm
    qemu/      guests of QEMU's whose devices are ours, and boots from one: `python -m lab.qemu.boots`

Each imports those above it and never tests.
"""
