"""Devices served to other programs' virtual machines, one folder for each protocol: ``vhost_user`` is the back-end side
of vhost-user.

The device and the ring code are those of ``acrn-dm`` itself; memory, kicks and calls come from the client. What is in
this folder is for all protocols: the text that names a device, the sockets, the program.
"""
