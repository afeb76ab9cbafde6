"""The sandbox of a process that serves devices: what it can't do any more once they are open.

``confine`` puts it on, and there is no way back. What a device needs beyond the common it says as ``needs.Needs``. Two
of the kernel's means hold it, each where the other can't: a filter of system calls (``seccomp``) knows no paths, and
Landlock (``landlock``) knows few calls. Capabilities are given up besides.
"""

ON, OFF, STRICT = "on", "off", "strict"
MODES = (ON, OFF, STRICT)
