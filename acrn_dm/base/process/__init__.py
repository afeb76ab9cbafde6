"""This process: its privileges, core dumps, children and stderr."""
