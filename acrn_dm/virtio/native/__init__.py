"""Virtqueues served in C: the base class of data planes, and the counters of every queue."""
