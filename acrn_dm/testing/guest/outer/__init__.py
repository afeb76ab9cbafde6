"""The outer VM: an emulated machine that runs commands on this host's file tree."""
