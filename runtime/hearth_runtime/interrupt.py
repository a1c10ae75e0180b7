"""Exceptions raised in other threads."""

import ctypes


def raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Sets or clears the exception that the thread raises at its next step of Python code."""
    value = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)
