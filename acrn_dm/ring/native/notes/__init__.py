"""Notes of the chains in flight, so that whoever serves a ring next can finish what the last one left."""
