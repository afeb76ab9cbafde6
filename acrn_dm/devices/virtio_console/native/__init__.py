"""Ports of a console, served in C while their readers and writers keep up."""
