"""The number of threads follows the CPUs that the process may use, not those of the machine."""

import os
import resource
from pathlib import Path

import pytest

from miniclip import cpu
from miniclip.errors import InvalidArgument, MiniClipError


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 CPUs without any setting."""
    for name in ("MINICLIP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)
    monkeypatch.setattr(cpu, "cgroup_cpus", lambda: None)


def fake_proc(folder: Path, version: int, own: str, quotas: dict[str, str], root: str = "/") -> Path:
    """/proc/self and a control group file system with quotas by folder."""
    mount = folder / "sys fs"
    for name, content in quotas.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(content)
    proc = folder / "proc"
    proc.mkdir()
    place = str(mount).replace(" ", "\\040")
    if version == 2:
        (proc / "cgroup").write_text(f"0::{own}\n")
        line = f"30 20 0:25 {root} {place} rw,nosuid shared:9 - cgroup2 cgroup2 rw"
    else:
        (proc / "cgroup").write_text(f"7:memory:/x\n4:cpu,cpuacct:{own}\n0::/\n")
        line = f"33 31 0:30 {root} {place} rw - cgroup cgroup rw,cpu,cpuacct"
    (proc / "mountinfo").write_text(f"1 0 8:1 / / rw - ext4 /dev/sda rw\n{line}\n")
    return proc


@pytest.mark.parametrize(
    ("version", "own", "quotas", "cpus"),
    [
        (2, "/", {"cpu.max": "200000 100000\n"}, 2.0),
        (2, "/", {"cpu.max": "max 100000\n"}, None),
        (2, "/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000", "cpu.max": "max"}, 1.5),
        (2, "/a", {"a/cpu.max": "50000\n"}, 0.5),
        (2, "/host/only", {"cpu.max": "300000 100000"}, 3.0),
        (2, "/../../x", {"cpu.max": "300000 100000"}, 3.0),
        (2, "/", {"cpu.max": "nonsense"}, None),
        (1, "/", {"cpu.cfs_quota_us": "400000\n", "cpu.cfs_period_us": "100000\n"}, 4.0),
        (1, "/", {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, None),
        (1, "/docker/1", {"cpu.cfs_quota_us": "250000\n", "cpu.cfs_period_us": "50000\n"}, 5.0),
        (1, "/d", {"d/cpu.cfs_quota_us": "100000\n", "d/cpu.cfs_period_us": "0\n"}, None),
    ],
)
def test_quota_of_control_groups(
    tmp_path: Path, version: int, own: str, quotas: dict[str, str], cpus: float | None
) -> None:
    proc = fake_proc(tmp_path, version, own, quotas)
    assert real_cgroup_cpus(proc) == cpus


real_cgroup_cpus = cpu.cgroup_cpus


def test_container_that_sees_its_own_group_as_the_root_of_the_mount(tmp_path: Path) -> None:
    proc = fake_proc(
        tmp_path, 1, "/docker/1/in", {"in/cpu.cfs_quota_us": "200000", "in/cpu.cfs_period_us": "100000"}, "/docker/1"
    )
    assert real_cgroup_cpus(proc) == 2.0


def test_no_control_groups(tmp_path: Path) -> None:
    assert real_cgroup_cpus(tmp_path) is None


def test_all_cpus_of_a_plain_machine() -> None:
    assert str(cpu.threads()) == "64 (all CPUs)"


def test_affinity_and_quota_bound_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 4, 9}, raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert str(cpu.threads()) == "3 (the process may use 3 of 64 CPUs)"
    monkeypatch.setattr(cpu, "cgroup_cpus", lambda: 1.5)
    assert str(cpu.threads()) == "2 (the container may use 1.5 of 64 CPUs)"
    monkeypatch.setattr(cpu, "cgroup_cpus", lambda: 0.2)
    assert cpu.thread_count() == 1
    monkeypatch.setattr(cpu, "cgroup_cpus", lambda: 200.0)
    assert cpu.thread_count() == 3


def test_the_option_wins_then_miniclip_threads_then_omp_num_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6,2")
    assert str(cpu.threads()) == "6 (OMP_NUM_THREADS)"
    monkeypatch.setenv("MINICLIP_THREADS", "5")
    assert str(cpu.threads()) == "5 (MINICLIP_THREADS)"
    cpu.set_threads(4)
    assert str(cpu.threads()) == "4 (--threads)"
    cpu.set_threads(None)
    assert cpu.thread_count() == 5


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "99999", "²"])
def test_wrong_settings(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert cpu.thread_count() == 64  # OpenMP reads this setting itself
    monkeypatch.setenv("MINICLIP_THREADS", value)
    with pytest.raises(InvalidArgument, match=r"MINICLIP_THREADS must be a whole number from 1 to 1024, got"):
        cpu.threads()


@pytest.mark.parametrize("limit", [1_000_000_000, 2_000_000_000])
def test_too_little_address_space_is_one_line(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, resource.RLIM_INFINITY))
    with pytest.raises(MiniClipError, match=f"may use {limit / 1e9:.1f} GB of address space.*ulimit -v unlimited"):
        cpu.check_address_space()


def test_no_module_asks_the_machine_for_its_cpus() -> None:
    root = Path(__file__).parents[2]
    files = [file for room in ("miniclip", "train", "export", "demo") for file in (root / room).rglob("*.py")]
    assert files
    assert [file.name for file in files if "cpu_count(" in file.read_text() and file.name != "cpu.py"] == []
