"""Stock Debian kernels, and the packages that they come in."""
