"""The basis: errors, buses, interrupts, events, files of the host. It knows nothing of devices or guests."""
