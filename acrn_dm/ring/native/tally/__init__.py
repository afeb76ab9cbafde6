"""The tally of what is in flight in a ring that others serve: it is read now and then, and never written."""
