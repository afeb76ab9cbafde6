"""Privileges of this process: what it gives up, and when."""

import ctypes

PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h


def no_new_privileges() -> None:
    """From now on no program that this process starts gains privileges: set-user-ID bits and file capabilities count
    for nothing. The kernel knows no way back. Nothing here starts any; what takes this process over might.
    """
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, *(ctypes.c_ulong(n) for n in (1, 0, 0, 0)))
