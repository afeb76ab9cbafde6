"""``werror`` and ``rerror``: which failures of the host stop the guest, and what becomes of the requests."""

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from acrn_dm.base.errors import ConfigError
from acrn_dm.cli.app import main
from acrn_dm.contract.resources import HostFault
from acrn_dm.devices.virtio_blk.error_policy import stops_guest
from acrn_dm.devices.virtio_blk.image.backend import Image
from acrn_dm.devices.virtio_blk.image.trust import LostError
from acrn_dm.devices.virtio_blk.request import Limits, Op, Request, parse
from acrn_dm.virtio.pci.transport import VirtioPci
from tests.devices.virtio_blk.blk_rig import (
    DISCARD,
    FLUSH,
    IN,
    IOERR,
    OK,
    OUT,
    UNSUPP,
    WRITE_ZEROES,
    Disk,
    config,
    disk,
    header,
    image,
    segment,
    slow_medium,
)
from tests.virtio.pause import pause, resume

pytestmark = pytest.mark.both_formats

CHANGES = (Op.WRITE, Op.FLUSH, Op.DISCARD, Op.WRITE_ZEROES)
FULL, BROKEN = OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken")
QUOTA, LOST, UNKNOWN = OSError(errno.EDQUOT, "quota"), LostError(errno.EIO, "gone"), OSError(errno.EOPNOTSUPP, "what")

# (option, error) -> does the guest stop; what is not here does not
WRITE_STOPS = {
    ("", FULL),
    ("", QUOTA),
    (",werror=enospc", FULL),
    (",werror=enospc", QUOTA),
    (",werror=stop", FULL),
    (",werror=stop", QUOTA),
    (",werror=stop", BROKEN),
}
READ_STOPS = {(",rerror=stop", FULL), (",rerror=stop", QUOTA), (",rerror=stop", BROKEN)}


@pytest.mark.parametrize("text", ["", ",werror=enospc", ",werror=stop", ",werror=report"])
@pytest.mark.parametrize("error", [FULL, QUOTA, BROKEN, LOST, UNKNOWN], ids=str)
def test_which_failed_changes_stop_the_guest(text: str, error: OSError) -> None:
    chosen = config(f"/x{text}")
    assert {stops_guest(chosen, op, error) for op in CHANGES} == {(text, error) in WRITE_STOPS}


@pytest.mark.parametrize("text", ["", ",rerror=report", ",rerror=stop", ",werror=stop"])
@pytest.mark.parametrize("error", [FULL, QUOTA, BROKEN, LOST, UNKNOWN], ids=str)
def test_which_failed_reads_stop_the_guest(text: str, error: OSError) -> None:
    assert stops_guest(config(f"/x{text}"), Op.READ, error) == ((text, error) in READ_STOPS)


@pytest.mark.parametrize("text", ["werror=ignore", "werror=x", "rerror=enospc", "rerror=ignore"])
def test_words_that_are_none_of_them_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected (enospc or )?report or stop"):
        config(f"/x,{text}")


@pytest.mark.parametrize("text", ["werror=stop", "rerror=stop"])
def test_disk_of_another_process_has_its_policy_there(text: str) -> None:
    with pytest.raises(ConfigError):
        config(f"vhost-user=/s,{text}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("werror=ignore", "virtio-blk: werror 'ignore': expected enospc or report or stop"),
        ("rerror=enospc", "virtio-blk: rerror 'enospc': expected report or stop"),
    ],
)
def test_dry_run_names_option_value_and_what_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    disk_text = f"3,virtio-blk,{image(tmp_path)},{text}"
    assert main(["--dry-run", "-s", "0:0,hostbridge", "-s", disk_text, "vm"]) == 78
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("word", ["enospc", "report", "stop"])
def test_policy_stands_in_a_toml_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str) -> None:
    file = tmp_path / "vm.toml"
    file.write_text(f'[[device]]\nslot = "3"\ntype = "virtio-blk"\npath = "{image(tmp_path)}"\nwerror = "{word}"\n')
    main(["--dry-run", "--config", str(file), "vm"])
    assert "werror" not in capsys.readouterr().err
    file.write_text(file.read_text().replace(word, "ignore"))
    assert main(["--dry-run", "--config", str(file), "vm"]) == 78
    assert "werror" in capsys.readouterr().err


def test_help_of_the_disk_names_the_policies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-s", "virtio-blk,help"]) == 0
    text = capsys.readouterr().out
    assert "werror=enospc|report|stop" in text
    assert "rerror=report|stop" in text


# The device


@attrs.define(eq=False)
class Machine:
    """Takes the place of the machine that can be paused. ``faults`` are those the device asked for pauses with."""

    accepts: bool = True
    faults: list[HostFault] = attrs.field(factory=list)

    def pause_guest(self, fault: HostFault) -> bool:
        if self.accepts:
            self.faults.append(fault)
        return self.accepts

    def serve(self, d: Disk) -> None:
        assert d.device._resources is not None
        d.device._resources = attrs.evolve(d.device._resources, pause_guest=self.pause_guest)


class Flaky:
    """An image whose next calls fail with *errors*; 0 and what comes behind them works."""

    def __init__(self, image_: Image, *errors: int) -> None:
        self._image = image_
        self.errors = list(errors)

    def read_cached(self, views: object, offset: int) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._image, name)
        if name not in ("read", "write", "flush", "discard", "write_zeroes"):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.errors and (err := self.errors.pop(0)):
                raise OSError(err, os.strerror(err))
            return method(*args, **kwargs)

        return call


def fails(d: Disk, *errors: int) -> None:
    """The image of *d* fails with these from now on."""
    assert d.device.image is not None
    d.device.image = Flaky(d.device.image, *errors)  # type: ignore[assignment]


def send(d: Disk, kind: int, sector: int = 5, queue: int = 0) -> int:
    """One request, kicked and settled; its token."""
    data = {OUT: b"w" * 512, DISCARD: segment(sector, 1), WRITE_ZEROES: segment(sector, 1)}.get(kind)
    q = d.driver.queue(queue)
    token = q.send([header(kind, sector)] + ([data] if data else []), [512, 1] if kind == IN else [1])
    q.kick()
    d.machine.settle()
    return token


def answers(d: Disk, queue: int = 0) -> list[tuple[int, int]]:
    """Token and status of what came back."""
    return [(c.token, c.data[-1]) for c in d.driver.queue(queue).completed()]


@pytest.fixture
def machine() -> Machine:
    return Machine()


NAMES = {IN: "read", OUT: "write", FLUSH: "flush", DISCARD: "discard", WRITE_ZEROES: "write_zeroes"}


@pytest.mark.parametrize("kind", NAMES)
def test_request_waits_unanswered_and_is_done_when_the_guest_is_resumed(
    tmp_path: Path, machine: Machine, kind: int
) -> None:
    path = image(tmp_path)
    with disk(f"{path},discard,werror=stop,rerror=stop") as d:
        machine.serve(d)
        fails(d, errno.ENOSPC)
        token = send(d, kind)
        assert answers(d) == []
        (fault,) = machine.faults
        assert (fault.device, fault.operation, fault.err) == ("virtio-blk-3:0", NAMES[kind], errno.ENOSPC)
        fault.resumed()
        d.machine.settle()
        assert answers(d) == [(token, OK)]
    if kind == OUT:
        assert path.read_bytes()[5 * 512 : 6 * 512] == b"w" * 512


def test_read_that_is_done_again_has_its_data(tmp_path: Path, machine: Machine) -> None:
    path = image(tmp_path)
    with disk(f"{path},rerror=stop") as d:
        machine.serve(d)
        fails(d, errno.EIO)
        send(d, IN, 7)
        machine.faults[0].resumed()
        d.machine.settle()
        (done,) = d.queue.completed()
        assert (done.written, done.data[:-1]) == (513, path.read_bytes()[7 * 512 : 8 * 512])


def test_full_disk_stops_by_default_and_a_broken_one_is_reported(tmp_path: Path, machine: Machine) -> None:
    with disk(str(image(tmp_path))) as d:
        machine.serve(d)
        fails(d, errno.EIO, errno.ENOSPC)
        broken = send(d, OUT)
        assert answers(d) == [(broken, IOERR)]
        send(d, OUT)
        assert answers(d) == []
        assert len(machine.faults) == 1


def test_error_that_nobody_could_resume_from_is_reported(tmp_path: Path, machine: Machine) -> None:
    machine.accepts = False
    with disk(f"{image(tmp_path)},werror=stop") as d:
        machine.serve(d)
        fails(d, errno.ENOSPC)
        token = send(d, OUT)
        assert answers(d) == [(token, IOERR)]
        assert d.device.errors == 1


def test_machine_without_sockets_reports_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with disk(f"{image(tmp_path)},werror=stop") as d:
        fails(d, errno.ENOSPC, errno.ENOSPC)
        tokens = [send(d, OUT) for _ in range(2)]
        assert answers(d) == [(token, IOERR) for token in tokens]
    assert caplog.text.count("nobody could resume it") == 1


@pytest.mark.parametrize("kind", [IN, OUT, DISCARD, WRITE_ZEROES])
@pytest.mark.parametrize("sector", [2048, 1 << 55, (1 << 64) - 1])
def test_row_71_guests_error_never_triggers_the_policy(
    tmp_path: Path, machine: Machine, kind: int, sector: int
) -> None:
    with disk(f"{image(tmp_path)},discard,werror=stop,rerror=stop") as d:
        machine.serve(d)
        token = send(d, kind, sector)
        assert answers(d) == [(token, IOERR)]
        assert machine.faults == []


def test_row_71_what_the_medium_does_not_know_never_triggers_the_policy(tmp_path: Path, machine: Machine) -> None:
    with disk(f"{image(tmp_path)},discard,werror=stop") as d:
        machine.serve(d)
        fails(d, errno.EOPNOTSUPP)
        token = send(d, DISCARD)
        assert answers(d) == [(token, UNSUPP)]
        assert machine.faults == []


def test_pause_is_asked_for_once_and_all_that_wait_are_done_again(tmp_path: Path, machine: Machine) -> None:
    with disk(f"{image(tmp_path)},werror=stop") as d:
        machine.serve(d)
        fails(d, *[errno.ENOSPC] * 5)
        tokens = [send(d, OUT, sector) for sector in range(5)]
        assert len(machine.faults) == 1
        machine.faults[0].resumed()
        d.machine.settle()
        assert sorted(answers(d)) == [(token, OK) for token in tokens]


def test_others_go_on_while_one_waits(tmp_path: Path, machine: Machine) -> None:
    with disk(f"{image(tmp_path)},werror=stop") as d:
        machine.serve(d)
        fails(d, errno.ENOSPC)
        send(d, OUT)
        other = send(d, IN)
        assert answers(d) == [(other, OK)]


def test_what_fails_again_asks_again(tmp_path: Path, machine: Machine) -> None:
    with disk(f"{image(tmp_path)},werror=stop") as d:
        machine.serve(d)
        fails(d, errno.ENOSPC, errno.ENOSPC)
        token = send(d, OUT)
        for _ in range(2):
            machine.faults[-1].resumed()
            d.machine.settle()
        assert len(machine.faults) == 2
        assert answers(d) == [(token, OK)]


def test_failure_from_before_the_guest_was_resumed_asks_no_more(tmp_path: Path, machine: Machine) -> None:
    """It comes late, from a thread that began before somebody made room: it is done again at once."""
    with disk(f"{image(tmp_path)},werror=stop") as d:
        machine.serve(d)
        fails(d, errno.ENOSPC, errno.ENOSPC)
        tokens = [send(d, OUT, 5)]
        with slow_medium(d) as gate:
            tokens.append(d.queue.send([header(OUT, 6), bytes(512)], [1]))
            d.queue.kick()
            d.machine.io_loops["io"].step()
            machine.faults[0].resumed()
            gate.set()
            pool = d.device._pools[0]
            with pool._changed:  # the late one has failed before the loop does the first one again
                assert pool._changed.wait_for(lambda: pool._unfinished == 0, 30)
            d.machine.settle()
        assert sorted(answers(d)) == [(token, OK) for token in tokens]
        assert len(machine.faults) == 1


def test_failure_of_a_plane_s_from_before_the_guest_was_resumed_asks_no_more(tmp_path: Path, machine: Machine) -> None:
    """The plane hands it over when the guest goes on again, and does not say when it began."""
    with disk(f"{image(tmp_path)},werror=stop") as d:
        machine.serve(d)
        fails(d, errno.ENOSPC)
        tokens = [send(d, OUT, 5)]
        machine.faults[0].resumed()
        d.machine.settle()
        taken: list[tuple[Any, Any]] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(d.device, "handle_queue", lambda queue: taken.extend((queue, c) for c in queue.pop_batch()))
            tokens.append(send(d, OUT, 6))
        ((queue, chain),) = taken
        request = parse(chain, Limits(capacity=64))
        assert isinstance(request, Request)
        d.device._handed(queue, chain, request, errno.ENOSPC)
        d.machine.settle()
        assert sorted(answers(d)) == [(token, OK) for token in tokens]
        assert len(machine.faults) == 1


def test_queue_that_fails_again_asks_though_another_has_not_begun(tmp_path: Path, machine: Machine) -> None:
    with disk(f"iothread=2,mq=2,{image(tmp_path)},werror=stop", vcpus=2) as d:
        machine.serve(d)
        fails(d, *[errno.ENOSPC] * 3)
        tokens = [send(d, OUT, 5, 0), send(d, OUT, 6, 1)]
        machine.faults[0].resumed()
        d.machine.io_loops["iothr-0-blk3:0"].run_until_idle()  # the other loop's turn comes later
        assert len(machine.faults) == 2
        machine.faults[1].resumed()
        d.machine.settle()
        assert answers(d, 0) + answers(d, 1) == [(tokens[0], OK), (tokens[1], OK)]


def test_flush_that_failed_stops_the_guest_once_and_is_reported_then(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doing it again can't bring back what the kernel has dropped."""
    with disk(f"{image(tmp_path)},writeback,werror=stop") as d:
        machine.serve(d)
        errors = [errno.ENOSPC]

        def fdatasync(fd: int) -> None:
            if errors:
                raise OSError(errors.pop(), "full")

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        token = send(d, FLUSH)
        assert answers(d) == []
        machine.faults[0].resumed()
        d.machine.settle()
        assert answers(d) == [(token, IOERR)]
        assert len(machine.faults) == 1


def reset(d: Disk) -> None:
    d.driver.reset()
    d.driver.start()


def rest(d: Disk) -> None:
    function = d.machine.bus.functions[-1]
    assert isinstance(function, VirtioPci)
    pause(function)
    resume(function)


@pytest.mark.parametrize("stops", [reset, rest])
def test_device_that_stops_forgets_what_waits(tmp_path: Path, machine: Machine, stops: Callable[[Disk], None]) -> None:
    with disk(f"{image(tmp_path)},werror=stop") as d:
        machine.serve(d)
        fails(d, errno.ENOSPC)
        token = send(d, OUT)
        stops(d)
        d.machine.settle()
        assert answers(d) == ([] if stops is reset else [(token, IOERR)])
        machine.faults[0].resumed()
        d.machine.settle()
        assert answers(d) == []
        assert d.write(6, bytes(512)) == OK, "it works as before"


def test_medium_that_is_inserted_brings_its_policy(tmp_path: Path, machine: Machine) -> None:
    with disk("nodisk") as d:
        machine.serve(d)
        d.device.insert_medium(f"{image(tmp_path)},werror=report")
        fails(d, errno.ENOSPC)
        token = send(d, OUT)
        assert answers(d) == [(token, IOERR)]


def test_every_request_ends_once_whatever_fails_how_often(tmp_path: Path, machine: Machine) -> None:
    with disk(f"mq=2,{image(tmp_path)},werror=stop,rerror=stop", vcpus=2) as d:
        machine.serve(d)
        pattern = [errno.ENOSPC, 0, errno.EIO, errno.ENOSPC, 0, 0, errno.EIO] * 6
        fails(d, *pattern)
        sent = [{send(d, kind, 3 * n, q) for n, kind in enumerate((OUT, IN, FLUSH, OUT) * 3)} for q in (0, 1)]
        seen = 0
        while len(machine.faults) > seen:
            seen = len(machine.faults)
            machine.faults[-1].resumed()
            d.machine.settle()
        done = [answers(d, q) for q in (0, 1)]
        assert [{token for token, _ in one} for one in done] == sent
        assert [len(one) for one in done] == [12, 12]
        assert {status for _, status in itertools.chain(*done)} == {OK}
