"""The threads of this process, which the kernel changes one at a time: each is had to do it, in a signal's handler."""

import errno
import os
import re
import threading

from acrn_dm.base.sandbox import _calls

ANSWER_MS = 5000  # for a thread to change itself; it does so at its next instruction
# Names of the kernel's own in a process: io_uring's, vhost's, KVM's. They execute nothing of ours and take no signals.
KERNEL_THREADS = re.compile(rb"iou-|vhost-[0-9]+$|kvm-nx-lpage")


def change_others() -> None:
    """Have every other thread do what this one did last by ``_calls``, those too that one of them starts meanwhile.
    Raises OSError.
    """
    done = {threading.get_native_id()}
    while others := _threads() - done:
        for tid in others:
            _change(tid)
        done |= others


def _change(tid: int) -> None:
    try:
        _calls.change_thread(tid, ANSWER_MS)
    except OSError as e:
        if e.errno != errno.ESRCH:
            raise


def _threads() -> set[int]:
    return {int(tid) for tid in os.listdir("/proc/self/task") if not _is_kernels(tid)}


def _is_kernels(tid: str) -> bool:
    try:
        with open(f"/proc/self/task/{tid}/comm", "rb") as file:
            return KERNEL_THREADS.match(file.read().rstrip(b"\n")) is not None
    except OSError:  # it has ended
        return True
