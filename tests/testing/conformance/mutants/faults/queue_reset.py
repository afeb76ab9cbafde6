"""Faults of queues that are reset one by one."""

from tests.testing.conformance.mutants.faults.fault import fault

CORE, PLANE, MODERN, VBS_U = "virtio.core", "virtio.dataplane", "virtio.pci.modern", "backends.vbs_u"
DO, DONE = "pci.common.queue_reset.do", "pci.common.queue_reset.done"

FAULTS = (
    fault(
        CORE,
        "queue_reset reads what was written, for ever",
        "        return int(self.queue_select in self._ending)\n",
        "        return int(self.queue_select in self._ending or self.queues[self.queue_select].renewable)\n",
        (DONE, "pci.common.queue_reset.reset0"),
    ),
    fault(
        MODERN,
        "queue_reset reads as queue_enable",
        "lambda c: c.queue_reset, VirtioCore.write_queue_reset",
        "lambda c: int(c.queues[c.queue_select].enabled), VirtioCore.write_queue_reset",
        ("pci.common.queue_reset.reset0",),
    ),
    fault(
        CORE,
        "queue_reset resets queue 0",
        "            self._change_queue(self.host.reset_queue, queue)\n",
        "            self._change_queue(self.host.reset_queue, self.queues[0])\n",
        (DO, "vqreset.no_exec"),
    ),
    fault(
        CORE,
        "a queue that was reset reads as enabled",
        "                self.queues[index].reset()\n                self.queues[index].renewable = True\n",
        "                self.queues[index].renewable = True\n",
        (DONE, "pci.common.queue_reset.do"),
    ),
    fault(
        CORE,
        "a queue that was reset keeps running",
        "            self._change_queue(self.host.reset_queue, queue)\n",
        "            pass\n",
        ("vqreset.no_exec", "vqreset.no_notify"),
    ),
    fault(
        PLANE,
        "a queue that comes back goes on behind its first chain",
        "        opened = self._open(resources, msix, queue, address, ring_format(session.features).start)\n",
        "        opened = self._open(resources, msix, queue, address, RingPosition(1))\n",
        ("vqreset.default_state",),
    ),
    fault(
        PLANE,
        "a queue that comes back has the vector of its last life",
        "        opened = self._open(resources, msix, queue, address, ring_format(session.features).start)\n",
        "        queue.vector = queue.index + 1\n"
        "        opened = self._open(resources, msix, queue, address, ring_format(session.features).start)\n",
        ("vqreset.reenable_observe_config",),
    ),
    fault(
        PLANE,
        "the call of a reset queue stays, and is signalled",
        "        self._events.pop(index).close()\n",
        "        gone = self._events.pop(index)\n        gone.kick.close()\n"
        "        self._session.resources.main_loop.call_later(0.01, gone.call.signal)\n",
        ("vqreset.no_notify",),
    ),
)
