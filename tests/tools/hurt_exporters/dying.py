"""A process that leaves its first client, and has ended only some time later: a core dump takes as long."""

import socket
import sys
import time

STATUS = 7
DYING_S = 0.3

if __name__ == "__main__":
    attacked, used = (argument.partition("=")[2] for argument in sys.argv[-2:])
    with (
        socket.create_server(attacked, family=socket.AF_UNIX) as server,
        socket.create_server(used, family=socket.AF_UNIX),
    ):
        server.accept()[0].close()
    time.sleep(DYING_S)
    sys.exit(STATUS)
