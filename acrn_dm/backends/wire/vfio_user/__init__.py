"""vfio-user on the wire, for both ends: messages and their channel."""
