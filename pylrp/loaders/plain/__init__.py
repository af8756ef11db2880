"""Bare arrays: from memory, .npz and .mat files (``arrays.py``), and the library's own files (``native.py``)."""
