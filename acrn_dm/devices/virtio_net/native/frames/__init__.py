"""Frames and their headers judged in C, with the answers of the modules in Python."""
