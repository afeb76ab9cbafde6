"""Virtqueues: layout, positions, and the walk at C speed. The only package that names a ring format."""
