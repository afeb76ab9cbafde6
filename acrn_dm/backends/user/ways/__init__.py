"""The ways from a driver's rings to a back-end."""
