"""Terminals of the host: modes, job control, the escape key, sizes, and the way back to what they were."""
