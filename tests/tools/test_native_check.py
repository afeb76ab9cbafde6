"""tools.native_check: nothing of Python's in the functions that move data."""

from pathlib import Path

import pytest

from tools.native_check import bodies, declared, faults, hot_modules, pythons

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
