"""The contract with plugins: hooks, records, options, what a device and a hypervisor are given and must do."""
