"""Listening UNIX sockets: how they are made and how they accept."""
