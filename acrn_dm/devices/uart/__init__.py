"""Serial ports: a 16550A (``uart16550``) between ISA ports (``port``) and a file of the host (``backends``)."""
