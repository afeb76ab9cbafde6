"""virtio-blk's data without Python: requests parsed, executed and answered by C code that needs no GIL."""
