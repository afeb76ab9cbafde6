"""Transfers of what is in memory already, on the loop's own thread: no engine, no completion to wait for."""
