"""vhost-user: data moves in another process."""
