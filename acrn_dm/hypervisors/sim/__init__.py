"""The simulated hypervisor: no processors, every call recorded."""
