"""The demonstration: a stock Debian kernel boots under acrn-dm and uses every device of the VM, timed and checked.

`python -m lab.demo`, best as root. Where /dev/kvm and hardware virtualization are there acrn-dm runs on this host
("kvm"), otherwise in the lab's outer VM ("lab"). Writes build/demo.json; the exit status says whether all is well.

    run.py     the whole run: the guest and its plan, what drives it, the judgement
    places.py  where acrn-dm runs: this host, or the outer VM
    drive.py   the part that runs there; talks with the guest, which guest.sh plays
    vmm.py     the machine as command lines of acrn-dm, and of QEMU
    disk.py    the disk image, and what has to have become of it
    log.py     progress and checks
"""
