"""Trials of the native rings that take minutes: a coverage-guided fuzzer under sanitizers, a race of two threads."""
