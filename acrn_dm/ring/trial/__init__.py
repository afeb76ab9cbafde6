"""Trials of the native rings at C speed: bytes that become a hostile driver, two threads that race."""
