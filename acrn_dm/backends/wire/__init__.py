"""The wire formats that both ends of vhost-user share."""
