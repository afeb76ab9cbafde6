"""Block engines: what executes transfers without the GIL; io_uring, or a pool of threads."""
