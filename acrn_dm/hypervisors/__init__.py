"""Hypervisors: who runs the vCPUs and forwards each access to an emulated register (``contract.hypervisor``)."""
