"""The requests of one queue from the ring to their answers, and what is left to move of each."""
