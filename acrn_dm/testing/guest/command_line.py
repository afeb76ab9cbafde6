"""Words for the command line of the lab's kernels: a console, and without what costs time in emulation alone."""

CONSOLE = "console=ttyS0 quiet panic=-1"
# Debian's kernels clear each page that they hand out, look twice at what they copy, and test every cipher at boot: a
# tenth of a boot below two emulations, and nothing that a device model does depends on it.
LEAN = "mitigations=off init_on_alloc=0 hardened_usercopy=off randomize_kstack_offset=off cryptomgr.notests lsm="
# They put each program elsewhere each time, and QEMU translates its code anew for another address: half of its start.
FIXED = "norandmaps"
# On one vCPU it takes the LOCK prefixes out of its code, one of 9,000 at a time, each a page fault and two flushes.
SMP = "noreplace-smp"
CLOCK = "tsc=reliable no_timer_check"
COMMAND_LINE = f"{CONSOLE} {CLOCK} {LEAN} {SMP} {FIXED}"
