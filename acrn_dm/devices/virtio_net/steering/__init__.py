"""Receive-side scaling and hash reports (virtio 5.1.6.4.3, 5.1.6.5.7): which queue a frame goes to, and its hash."""
