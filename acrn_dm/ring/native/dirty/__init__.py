"""The log of the pages that a ring writes, for migrations."""
