"""Privileges of this process: what it gives up, and when."""

from acrn_dm.base._libc import set_no_new_privs


def no_new_privileges() -> None:
    """From now on no program that this process starts gains privileges: set-user-ID bits and file capabilities count
    for nothing. The kernel knows no way back. Nothing here starts any; what takes this process over might.
    """
    set_no_new_privs()
