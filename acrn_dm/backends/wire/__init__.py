"""The wire formats that both ends of vhost-user, and of vfio-user, share."""
