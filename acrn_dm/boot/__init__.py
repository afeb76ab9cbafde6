"""Getting a guest to its first instruction: kernel loaders, memory map, ACPI tables."""
