"""Linux KVM by its ioctls: the system's file and the virtual machine's; ``vcpu`` has that of a vCPU."""
