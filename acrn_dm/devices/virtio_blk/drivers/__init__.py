"""Block drivers behind a disk: the guard around a plugin's, and the built-in ones, which are our engines on a file."""
