"""Parts of a script whose process changes while it has threads: one asleep in the kernel, one busy in Python.

``BEGIN`` starts them. With ``END`` each calls ``look(NAME)``, which is the script's: ``asleep``, ``busy`` and ``main``.
"""

BEGIN = """
import os, threading
waiting, stop = os.eventfd(0), threading.Event()

def asleep():
    os.eventfd_read(waiting)
    look("asleep")

def busy():
    while not stop.is_set():
        pass
    look("busy")

def status(*keys):  # of the thread that calls: the words of these lines
    lines = dict(line.split(":", 1) for line in open("/proc/thread-self/status"))
    return [lines[key].split() for key in keys]

threads = [threading.Thread(target=work) for work in (asleep, busy)]
[thread.start() for thread in threads]
"""
END = """
stop.set()
os.eventfd_write(waiting, 1)
[thread.join() for thread in threads]
look("main")
"""
