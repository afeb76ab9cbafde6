__pyx_capi__: dict[str, object]  # the C functions, for Cython's cimport; there is nothing for Python
