"""Backends whose data plane is outside this process: the kernel's vhost, and vhost-user processes."""
