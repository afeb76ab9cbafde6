"""tools.native_check: nothing of Python's in the functions that move data."""

from pathlib import Path

import pytest

from tools import native_check
from tools.native_check import PACKAGE, ROOT, bodies, declared, faults, hot_modules, pythons

SOURCE = """
cdef int with_python(int x) except -1:
    return x

cdef int plain(
    int x, int y,
) noexcept nogil:
    return x

cdef class Thing:
    cdef object python(self)
    cdef int method(self) noexcept nogil
"""

GENERATED = """
static int __pyx_f_3mod_plain(int __pyx_v_x, int __pyx_v_y); /* proto */
static int __pyx_f_3mod_plain(int __pyx_v_x, int __pyx_v_y) {
  /* "mod.pyx":6  PyList_New(0) in a comment */
  __pyx_r = __pyx_f_3mod_5Thing_method(x);
  return __pyx_r;
}
static int __pyx_f_3mod_5Thing_method(struct x *self) {
  __pyx_t_1 = PyObject_GetAttr(x, y);
  __pyx_f_3mod_with_python(1);
}
"""


def test_no_function_that_moves_data_calls_python() -> None:
    count, lines = faults(hot_modules())
    assert lines == []
    assert count > 400


ON_THE_WAY = {  # of each data path: functions that every request, frame or byte of its kind passes
    "base/events/_aio": ("KernelSignal_signal_fd",),
    "base/events/_poll": ("rounds", "run_native", "sleep", "EventPoll__look"),
    "backends/user/native/_relay": ("RelayPlane_handle", "RelayPlane__answer", "RelayPlane__look"),
    "devices/virtio_blk/image/_standing": ("blk_whole", "blk_changes", "blk_synced"),
    "devices/virtio_blk/native/_plane": ("BlkPlane_handle", "BlkPlane_turn"),
    "devices/virtio_blk/native/_request": ("blk_parse",),
    "devices/virtio_blk/native/_service": ("BlkService_accept", "BlkService_went", "BlkService_flushed"),
    "devices/virtio_blk/native/engines/_pool": ("PoolEngine_submit", "PoolEngine_reap", "work"),
    "devices/virtio_blk/native/engines/_uring": ("UringEngine_submit", "UringEngine_commit", "UringEngine_reap"),
    "devices/virtio_blk/native/shortcut/_mapping": ("mapping_read",),
    "devices/virtio_blk/native/shortcut/_shortcut": ("BlkShortcut_read", "BlkShortcut_write"),
    "devices/virtio_blk/native/tasks/_answers": ("BlkAnswers_reply", "BlkAnswers_bounce"),
    "devices/virtio_blk/native/tasks/_task": ("task_piece", "task_moved"),
    "devices/virtio_blk/native/throttle/_gate": ("BlkGate_parks", "BlkGate_next"),
    "devices/virtio_console/native/_port_plane": ("PortPlane_handle", "TxPlane_move", "RxPlane_move", "_input"),
    "devices/virtio_net/native/_link": (),
    "devices/virtio_net/native/_rx": ("NetRx_serve", "NetRx_fetch", "NetRx_deliver"),
    "devices/virtio_net/native/_tx": ("NetTx_handle", "NetTx_send"),
    "devices/virtio_net/native/frames/_filter": (),
    "devices/virtio_net/native/frames/_headers": (),
    "devices/virtio_net/steering/_hash": (),
    "ring/native/packed/_packed": ("fp_push", "fp_publish"),
    "ring/native/split/_split": ("fr_push", "fr_publish"),
    "virtio/native/_plane": ("Plane_serve", "Plane__take", "Plane_flush", "Plane_show_late", "Coalescer_add"),
}


@pytest.mark.parametrize(("module", "names"), ON_THE_WAY.items(), ids=ON_THE_WAY)
def test_python_in_any_function_of_a_data_path_is_found(
    module: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted in all of them that the module is made of, those of headers, too."""
    source = PACKAGE / f"{module}.pyx"
    built = bodies(source.with_suffix(".c"))
    free = {found.c_name for kind in ("*.pyx", "*.pxd") for path in PACKAGE.rglob(kind) for found in declared(path)}
    assert source in hot_modules()
    planted = {name: f"{body}  x = PyObject_CallNoArgs(y);" for name, body in built.items()}
    monkeypatch.setattr(native_check, "bodies", lambda generated: planted)
    expected = [f"{source.relative_to(ROOT)}: {name} calls PyObject_CallNoArgs" for name in sorted(free & built.keys())]
    assert expected
    assert faults([source])[1] == expected
    assert all(any(line.split()[1].endswith(name) for line in expected) for name in names), expected


def test_functions_without_the_gil_are_found_by_their_names_in_c(tmp_path: Path) -> None:
    source = tmp_path / "mod.pyx"
    source.write_text(SOURCE)
    names = [found.c_name for found in declared(source, tmp_path)]
    assert names == ["__pyx_f_3mod_plain", "__pyx_f_3mod_5Thing_method"]


def test_calls_of_python_and_of_what_takes_the_gil_are_found_and_those_in_comments_are_not(tmp_path: Path) -> None:
    generated = tmp_path / "mod.c"
    generated.write_text(GENERATED)
    free = {"__pyx_f_3mod_plain", "__pyx_f_3mod_5Thing_method"}
    found = {name: pythons(body, free) for name, body in bodies(generated).items()}
    assert found == {
        "__pyx_f_3mod_plain": set(),
        "__pyx_f_3mod_5Thing_method": {"PyObject_GetAttr", "__pyx_f_3mod_with_python"},
    }


@pytest.mark.parametrize("call", ["PyErr_Occurred()", "PyGILState_Ensure()", "__Pyx_AddTraceback(a)", "_Py_Dealloc(x)"])
def test_any_way_into_python_counts(call: str) -> None:
    assert pythons(f"  x = {call};", set())


def test_module_that_was_not_built_is_a_fault() -> None:
    count, lines = faults([hot_modules()[0].with_name("_no_such.pyx")])
    assert (count, len(lines)) == (0, 1)
