"""The emulated Hypervisor Service Module (src/rig.h): built, preloaded, and put under many requests."""
