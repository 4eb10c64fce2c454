"""Limit the memory pools of the C library, so that a process that serves for days does not grow.

glibc gives threads their own memory pools ("arenas", mallopt(3)), up to eight per core. Memory that is freed in one
pool cannot be used by another. Requests run on many threads, so every pool grows to its own maximum. With two pools the
memory stops growing early, at no measured cost in time (docs/reliability.md, "Load and soak").
"""

import ctypes
import os
import sys

M_ARENA_MAX = -8  # glibc's malloc.h
ARENAS = 2


def limit_memory_pools() -> bool:
    """Allow two pools, unless `MALLOC_ARENA_MAX` is set. Returns whether the C library accepts.

    Call it before threads start.
    """
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS))
    except AttributeError:  # a C library other than glibc
        return False
