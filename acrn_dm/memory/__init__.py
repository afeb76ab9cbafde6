"""The guest's memory: files, mappings, huge pages."""
