"""Rules of network cards (virtio 5.1): configuration, frames both ways, commands."""
