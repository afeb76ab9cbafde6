"""KVM: the hypervisor of any Linux."""
