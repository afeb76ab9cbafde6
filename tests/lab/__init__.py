"""The lab: an emulated machine whose kernel has a real /dev/kvm, vhost and tap for acrn-dm to run on.

QEMU in software emulation boots a stock Debian kernel (the *outer* VM) on this host's own file tree, mounted read-only
over 9p. acrn-dm runs in there and boots a second stock kernel (the *inner* guest).

    kernel.py     fetches Debian's kernel package, without installing it
    images.py     builds the two initramfs
    qemu.py       command-line pieces and the life of one QEMU process
    vm.py         OuterVm: commands in the outer VM, through agent.py
    reference.py  boots the inner guest under plain QEMU, as the yardstick
    dmesg.py      compares the warnings of two kernel logs
    demo.py       the demonstration: `python -m tests.lab.demo`; drive.py is its part where the VMM runs, vmm.py the
                  VMM's command line
"""
