"""The engine: executes requests of a disk, in pieces, on worker threads."""
