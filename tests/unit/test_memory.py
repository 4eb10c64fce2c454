"""The page's memory pools, counted in a process with many threads."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.memory import ARENAS

PROGRAM = """
import ctypes, threading
from demo.memory import limit_memory_pools
print("taken" if limit_memory_pools() else "left")
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
meet = threading.Barrier(32)
def work():
    meet.wait()  # all at once, so that each has a pool of its own where that is allowed
    libc.malloc(ctypes.c_size_t(1000))
    meet.wait()
threads = [threading.Thread(target=work) for _ in range(32)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


def pools(**environment: str) -> tuple[str, int]:
    """The result of `limit_memory_pools`, and the memory pools of a process with 32 threads."""
    known = {key: value for key, value in os.environ.items() if key != "MALLOC_ARENA_MAX"}
    reported = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2], env={**known, **environment, "PYTHONUNBUFFERED": "1"},
    ).stdout  # fmt: skip
    return reported.split()[0], len(re.findall(r"<heap nr=", reported))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has such pools")
def test_many_threads_share_two_memory_pools_unless_the_user_says_otherwise() -> None:
    assert pools() == ("taken", ARENAS)
    assert pools(MALLOC_ARENA_MAX="5") == ("left", 5)
