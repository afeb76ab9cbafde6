"""The way to a guest's first instruction: kernel loaders, memory map, ACPI tables."""
