"""Virtqueues: layout, positions, and the walk at C speed."""
