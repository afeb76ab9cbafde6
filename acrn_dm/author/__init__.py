"""``acrn-dm-plugin``: begin a plugin, look at what is installed, check one."""
