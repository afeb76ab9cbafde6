"""A vCPU of Linux KVM: what it holds at rest, the loop that runs it, and the exits it makes."""
