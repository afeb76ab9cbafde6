"""The C units of the rings. Python and other Cython modules reach them through ``acrn_dm._fastring``."""
