"""How the C library shares out memory in a process that serves for days.

glibc gives threads memory pools of their own ("arenas", mallopt(3)), up to eight a core, and what is freed in one is of
no use to another. Requests come on many threads, so each pool grows to its own worst case, and the page's memory goes
on rising; two pools are soon full, at no cost in time that was seen (docs/reliability.md, "Load and soak").
"""

import ctypes
import os
import sys

M_ARENA_MAX = -8  # glibc's malloc.h
ARENAS = 2


def keep_memory_together() -> bool:
    """Allow two pools; whether the C library took it. Call it before threads start; `MALLOC_ARENA_MAX` overrides it."""
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS))
    except AttributeError:  # another C library than glibc
        return False
