"""Devices that are wrong about their life: start, stop, pause, reset, close, and what they leave behind."""

import os
import threading
from collections.abc import Sequence
from typing import Any

from acrn_dm import Chain, Queue
from tests.testing.conformance.mutants.registry import breaks
from tests.testing.conformance.mutants.right import Later, Right


@breaks("dm.exception", "feat.accept_valid_subset")
class RaisesInStart(Right):
    """Raises when it is started."""

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        raise ZeroDivisionError


@breaks("dm.exception")
class RaisesInStop(Right):
    """Raises when it is stopped."""

    def stop(self) -> None:
        raise ZeroDivisionError


@breaks("dm.exception")
class RaisesInReset(Right):
    """Raises when it is reset."""

    def reset(self) -> None:
        raise ZeroDivisionError


@breaks("dm.exception")
class RaisesInClose(Right):
    """Raises when it is closed."""

    def close(self) -> None:
        raise ZeroDivisionError


@breaks("dm.exception")
class RaisesInCancel(Right):
    """Raises when it has to give up what is in flight."""

    def cancel(self) -> None:
        raise ZeroDivisionError


@breaks("dm.exception")
class RaisesInNegotiated(Right):
    """Raises when it hears what was negotiated."""

    def negotiated(self, features: int) -> None:
        raise ZeroDivisionError


@breaks("dm.exception")
class DiesInATimer(Right):
    """Raises on its loop, long after the kick that it came from."""

    def handle_queue(self, queue: Queue) -> None:
        super().handle_queue(queue)
        queue.loop.call_soon(self._later)

    def _later(self) -> None:
        raise ZeroDivisionError


@breaks("dm.exception")
class DiesInAThread(Right):
    """Loses a thread to an exception."""

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        thread = threading.Thread(target=self._work)
        thread.start()
        thread.join()

    def _work(self) -> None:
        raise ZeroDivisionError


@breaks("feat.renegotiate_same", "dm.restart", "dm.reset_works")
class StartsOnce(Right):
    """Refuses to be started a second time."""

    started = False

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        if self.started:
            raise RuntimeError("only once")
        self.started = True
        super().start(features, queues)


@breaks("dm.restart", "dm.exception")
class TiresAfterAWhile(Right):
    """Fails at the twelfth start: something was used up each time."""

    starts = 0

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        self.starts += 1
        if self.starts >= 12:
            raise RuntimeError("no more")
        super().start(features, queues)


@breaks("dm.reset_works", "dm.restart", "dm.lost_chain")
class ServesTheFirstDriverOnly(Right):
    """Serves one driver, and none after its reset."""

    served = False

    def handle_queue(self, queue: Queue) -> None:
        if not self.served:
            super().handle_queue(queue)

    def reset(self) -> None:
        super().reset()
        self.served = self.served or self.negotiated_features != 0


@breaks("feat.renegotiate_same", "feat.accept_valid_subset")
class WantsTheFeaturesOfTheFirst(Right):
    """Accepts what its first driver accepted, and nothing else."""

    first = 0

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        self.first = self.first or features
        if features != self.first:
            raise RuntimeError(f"{features:#x} are not {self.first:#x}")
        super().start(features, queues)


SOON_S = 0.002


class _Keeper(Right):
    """Answers a little later, with what it remembers of the chain's place: by hand, if need be."""

    def handle_queue(self, queue: Queue) -> None:
        for chain in queue.pop_batch():
            at = self.ring_registers(queue.index).desc + 16 * chain.head
            self.keep(queue, chain, self.resources.memory.map.read(at, 16))

    def keep(self, queue: Queue, chain: Chain, descriptor: bytes) -> None:
        raise NotImplementedError


@breaks("reset.no_queue_access")
class WritesAfterReset(_Keeper):
    """Writes into a buffer after the reset."""

    def keep(self, queue: Queue, chain: Chain, descriptor: bytes) -> None:
        super_answer = super().answer
        gpa = int.from_bytes(descriptor[:8], "little")
        epoch = self.function.core.epoch

        def later() -> None:
            if not queue.closed:
                super_answer(queue, chain)
                queue.flush()
            elif self.function.core.epoch != epoch:
                self.resources.memory.map.write(gpa, b"late")

        queue.loop.call_later(SOON_S, later)


@breaks("reset.no_notify")
class InterruptsAfterReset(Right):
    """Interrupts for the last driver's chains after the reset."""

    def handle_queue(self, queue: Queue) -> None:
        super().handle_queue(queue)
        function = self.function
        vector = self.ring_registers(queue.index).vector

        def later() -> None:
            if queue.closed:
                function.msix.raise_vector(0 if vector == 0xFFFF else vector)
                function.interrupts.queue_without_msix()

        queue.loop.call_later(SOON_S, later)


@breaks("reset.no_notify", "pci.isr.read_clears", "reset.status_zero")
class InterruptsInItsReset(Right):
    """Announces a change while it is being reset."""

    def reset(self) -> None:
        super().reset()
        function = self.function
        if function._resources is not None:
            function._resources.main_loop.call_soon(function.config_interrupt)


@breaks("reset.status_zero", "dm.reset_works")
class IsBusyForEver(Right):
    """Never has nothing in flight, so that its reset never ends."""

    looks = 0

    @property
    def busy(self) -> bool:
        self.looks += 1
        return bool(self.negotiated_features) and self.looks % 100_000 != 0


@breaks("status.needs_reset.notify")
class AsksForAResetInSilence(Right):
    """Sets NEEDS_RESET without a word to its driver."""

    def fail(self, error: Exception) -> None:
        self.function.core.status |= 64
        self.resources.device_failed(self, error)


@breaks("dm.leak")
class LeavesAFileOpen(Right):
    """Opens a file at each start and closes none."""

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        os.dup(0)


@breaks("dm.leak")
class OpensAFileForGood(Right):
    """Opens a file when the machine is made, and forgets to close it."""

    def realize(self, resources: Any) -> None:
        super().realize(resources)
        os.eventfd(0)


@breaks("dm.leak")
class LeavesAThread(Right):
    """Starts a thread and never ends it."""

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        threading.Thread(target=threading.Event().wait, daemon=True).start()


@breaks("dm.leak", "dm.exception")
class KeepsGuestMemory(Right):
    """Keeps a slice of a view of guest memory for ever."""

    kept: memoryview | None = None

    def answer(self, queue: Queue, chain: Chain) -> None:
        if chain.writable_bytes:
            self.kept = chain.writable()[0][:1]
            del self.kept
            _KEPT.append(chain.writable()[0][:1])
        super().answer(queue, chain)


_KEPT: list[memoryview] = []


@breaks("dm.pause")
class CanNotGoOn(Right):
    """Fails when it is started again after a pause."""

    paused = False

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        if self.paused:
            raise RuntimeError("what was said is gone")
        super().start(features, queues)

    def stop(self) -> None:
        super().stop()
        self.paused = True

    def reset(self) -> None:
        super().reset()
        self.paused = False


@breaks("dm.pause")
class ForgetsInAPause(Right):
    """Takes a pause for a reset, and forgets what its driver wrote."""

    def stop(self) -> None:
        super().stop()
        self.noted = bytearray(4)


@breaks("dm.pause")
class LosesWhatAPauseInterrupts(_Keeper):
    """Answers a little later, and at a pause returns what it has as it is."""

    held: "list[tuple[Queue, Chain]]"

    def keep(self, queue: Queue, chain: Chain, descriptor: bytes) -> None:
        self.held = [*getattr(self, "held", []), (queue, chain)]
        queue.loop.call_later(SOON_S, self._answer)

    def _answer(self) -> None:
        held, self.held = self.held, []
        for queue, chain in held:
            if not queue.closed:
                self.answer(queue, chain)
                queue.flush()

    def stop(self) -> None:
        for queue, chain in getattr(self, "held", []):
            queue.push(chain, 0)
            queue.flush()
        self.held = []
        super().stop()


@breaks("dm.instance_state")
class SharesItsQueues(Right):
    """Keeps its session in a class attribute: the second instance ends the first one's."""

    running: "SharesItsQueues | None" = None

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        SharesItsQueues.running = self

    def handle_queue(self, queue: Queue) -> None:
        if SharesItsQueues.running is self:
            super().handle_queue(queue)


@breaks("dm.some_queues", "dm.exception")
class WantsAllItsQueues(Right):
    """Fails where its driver enables some of its queues only."""

    def start(self, features: int, queues: Sequence[Queue]) -> None:
        super().start(features, queues)
        for index in range(len(self.sizes)):
            assert queues[index].index == index


class _OneByOne(Later):
    """Right: lets go of queues one by one."""

    def queue_reset(self, queue: Queue) -> None:
        self.held = [(whose, chain) for whose, chain in self.held if whose is not queue]

    def queue_enabled(self, queue: Queue) -> None:
        """Nothing to prepare."""


@breaks("pci.common.queue_reset.ongoing")
class WritesAfterAQueueReset(_OneByOne):
    """Fills in buffers of a queue when its reset has read as over."""

    def queue_reset(self, queue: Queue) -> None:
        buffers = [part[:] for whose, chain in self.held if whose is queue for part in chain.writable()]
        super().queue_reset(queue)
        queue.loop.call_later(0.002, lambda: self.fill(buffers))

    def fill(self, buffers: list[memoryview]) -> None:
        for buffer in buffers:
            buffer[:] = bytes(len(buffer))


@breaks("vqreset.default_state", "vqreset.reenable_observe_config", "pci.common.queue_reset.do")
class ForgetsAQueueThatComesBack(_OneByOne):
    """Serves the queues that it got at the start, and no other."""

    def handle_queue(self, queue: Queue) -> None:
        if queue in self.queues:
            super().handle_queue(queue)
