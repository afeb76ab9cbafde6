"""Texts that are asked for instead of a guest: help, the inventory of plugins, the report of ``--dry-run``."""
