"""Devices served to other programs' virtual machines: the back-end side of vhost-user.

The device and the ring code are those of ``acrn-dm`` itself; memory, kicks and calls come from the client.
"""
