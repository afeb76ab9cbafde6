"""Benchmarks: each module prints a table with ratios and writes JSON to ``build/``."""
