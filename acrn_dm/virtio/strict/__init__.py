"""The strict check of drivers: what a driver must keep, and which clause of the specification it broke."""
