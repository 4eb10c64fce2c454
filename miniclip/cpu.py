"""How many threads to use. A container may allow fewer CPUs than `os.cpu_count()` reports.

The first of these decides: `set_threads` (the option `--threads`), `MINICLIP_THREADS`, `OMP_NUM_THREADS`, the CPUs of
this process. These are the CPUs that the scheduler allows (affinity), or the quota of the process's control groups
(version 1 or 2) if it is smaller.
Source: Linux, Documentation/admin-guide/cgroup-v2.rst (`cpu.max`) and cgroup-v1 (`cpu.cfs_quota_us`).
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from miniclip.errors import InvalidArgument, MiniClipError

MAX_THREADS = 1024
MIN_ADDRESS_SPACE = 2_500_000_000  # measured with 2 threads: indexing fails in 2 GB and runs in 3 GB
PROC = Path("/proc/self")

_chosen: int | None = None


@dataclass(frozen=True)
class Threads:
    """The number of threads, and its reason."""

    count: int
    reason: str

    def __str__(self) -> str:
        return f"{self.count} ({self.reason})"


def set_threads(count: int | None) -> None:
    """Set the number of threads for this process; None: the environment or the machine decides."""
    global _chosen
    _chosen = None if count is None else _checked("threads", str(count))


def threads() -> Threads:
    """The number of threads to use, and the reason for it.

    Errors: `InvalidArgument` when `MINICLIP_THREADS` is not a valid number.
    """
    if _chosen is not None:
        return Threads(_chosen, "--threads")
    if own := os.environ.get("MINICLIP_THREADS", "").strip():
        return Threads(_checked("MINICLIP_THREADS", own), "MINICLIP_THREADS")
    # OpenMP also allows a list, with one number for each level of nesting, and values that are not numbers
    openmp = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if re.fullmatch(r"0*[1-9]\d{0,3}", openmp, re.ASCII) and int(openmp) <= MAX_THREADS:
        return Threads(int(openmp), "OMP_NUM_THREADS")
    machine = os.cpu_count() or 1
    allowed, quota = _allowed_cpus(), cgroup_cpus()
    if quota is not None and math.ceil(quota) < allowed:
        return Threads(max(1, math.ceil(quota)), f"the container may use {quota:g} of {machine} CPUs")
    if allowed < machine:
        return Threads(allowed, f"the process may use {allowed} of {machine} CPUs")
    return Threads(machine, "all CPUs")


def thread_count() -> int:
    """The number of threads to use. Errors: as in `threads`."""
    return threads().count


def check_address_space() -> None:
    """Raise `MiniClipError` if `ulimit -v` is too low, because some libraries would then end the process silently."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < MIN_ADDRESS_SPACE:
        raise MiniClipError(
            f"this process may use {limit / 1e9:.1f} GB of address space, and MiniCLIP needs "
            f"{MIN_ADDRESS_SPACE / 1e9:.1f} GB; raise the limit with: ulimit -v unlimited"
        )


def _checked(name: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,4}", text, re.ASCII) or not 1 <= int(text) <= MAX_THREADS:
        raise InvalidArgument(name, f"must be a whole number from 1 to {MAX_THREADS}, got {text}")
    return int(text)


def _allowed_cpus() -> int:
    """The number of CPUs that the scheduler allows this process."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def cgroup_cpus(proc: Path = PROC) -> float | None:
    """The smallest CPU quota of the process's control groups and the groups above them, in CPUs; None without one."""
    try:
        groups = (proc / "cgroup").read_text()
        mounts = (proc / "mountinfo").read_text()
    except (OSError, ValueError):  # not Linux, or /proc is hidden
        return None
    quotas = [quota for folder in _cgroup_folders(groups, mounts) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _cgroup_folders(groups: str, mounts: str) -> Iterator[Path]:
    """The folders of the process's control groups that limit CPUs, each followed by the folders of its parents."""
    own: dict[bool, str] = {}  # is it version 2? -> path of the process's group
    for line in groups.splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "" and number == "0":
            own[True] = path
        elif "cpu" in controllers.split(","):
            own[False] = path
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not separator or len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        is_second = kind[0] == "cgroup2"
        if is_second not in own or (not is_second and "cpu" not in kind[2].split(",")):
            continue
        mount, root = Path(_unescaped(fields[4])), _unescaped(fields[3])
        path = own[is_second]
        # in a container, the mount often begins at the group itself, but `path` begins at the host's root
        below = path[len(root) :] if root != "/" and (path + "/").startswith(root + "/") else path
        folder = mount / below.lstrip("/")
        if ".." in folder.parts or not folder.is_dir():
            folder = mount
        while True:
            yield folder
            if folder in (mount, folder.parent):
                break
            folder = folder.parent


def _unescaped(path: str) -> str:
    """A path of /proc/self/mountinfo, which writes spaces as `\\040`."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path)


def _quota(folder: Path) -> float | None:
    """CPUs that one control group may use on average, or None if it has no limit."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = [*(folder / "cpu.max").read_text().split(), "100000"][:2]
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        cpus = int(quota) / int(period)  # "max" and -1: no limit
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return cpus if cpus > 0 else None
