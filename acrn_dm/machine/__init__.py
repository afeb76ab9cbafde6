"""One virtual machine: from its configuration to its end."""
