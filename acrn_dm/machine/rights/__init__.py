"""The rights of a machine's process, of which it needs few when all is open: ``--user`` and ``--sandbox``.

They are given up between opening and running. A broker (``backends.broker``) keeps them for what is known to come
later: connections to other processes' sockets, and the next processes of devices. What nobody told of before, such as
a medium that a manager puts in, is opened by who the process is then, or refused with one line.
"""

USER, SANDBOX = "--user", "--sandbox"
