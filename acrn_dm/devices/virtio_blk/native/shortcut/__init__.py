"""The shortcut of requests whose bytes are in memory: the loop's own thread moves them, without an engine."""
