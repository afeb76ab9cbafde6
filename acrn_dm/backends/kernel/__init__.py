"""The kernel's vhost: data moves in the host's kernel."""
