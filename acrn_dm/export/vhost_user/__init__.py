"""vhost-user's back-end side: a client's messages, and what they make of a device, its rings and its memory."""
