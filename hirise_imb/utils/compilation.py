"""Compiled functions, which are cached on disk where a folder for them can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compile_function(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # noqa: ANN401
    """Returns a decorator that compiles a function when it is first called, without the interpreter's lock.

    The machine code is cached next to the module or in the user's cache folder; if neither can be written, each process
    compiles anew.

    Args:
        options: further options of `numba.njit`.
    """

    def compile_cached(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            compiled: Callable[..., Any] = numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba has found no folder for the cache
            compiled = numba.njit(nogil=True, **options)(function)
        return compiled

    return compile_cached
