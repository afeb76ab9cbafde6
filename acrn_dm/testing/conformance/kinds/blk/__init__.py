"""Rules of disks (virtio 5.2): configuration, requests, ranges, the cache."""
