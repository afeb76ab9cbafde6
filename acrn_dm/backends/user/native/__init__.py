"""Relayed queues in C."""
