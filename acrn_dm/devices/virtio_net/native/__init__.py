"""Queue pairs of a card served in C: frames move between virtqueues and a descriptor without Python."""
