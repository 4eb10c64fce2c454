"""A Ray cluster of three nodes, one of them killed half-way, writes the same table as one process."""

import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from miniclip.errors import MiniClipError
from miniclip.index.indexer import update_index
from miniclip.index.store import read_problems
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.cli import REPOSITORY
from tests.support.drawing import make_distinct_images
from tests.support.indexing import encoders
from tests.support.killed_index import rows

ray: Any = pytest.importorskip("ray", reason="the extra [ray] is not installed")
pytest.importorskip("lance_ray", reason="the extra [ray] is not installed")

from ray.cluster_utils import Cluster  # noqa: E402

from miniclip.index import ray_indexer as ray_index  # noqa: E402

__all__ = ["encoders"]  # fixture
GOOD, BAD, BLOCK = 240, 4, 10
MARKERS, KILLED = "MINICLIP_TEST_MARKERS", "killed"


class MarkingEmbedder(ray_index.RayEmbedder):
    """The real actor; for every finished block, it also writes a file named after its node.

    After two blocks it waits for the kill, which therefore comes half-way on any machine.
    """

    blocks = 0

    def __call__(self, files: pa.Table) -> pa.Table:
        result = super().__call__(files)
        self.blocks += 1
        while self.blocks > 2 and not Path(os.environ[MARKERS], KILLED).exists():
            time.sleep(0.05)  # between two checks
        node = ray.get_runtime_context().get_node_id()
        Path(os.environ[MARKERS], f"{node}-{uuid.uuid4().hex}").touch()
        return result


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(REPOSITORY))  # so that workers can import the tests
    patch.setenv(MARKERS, str(tmp_path_factory.mktemp("markers")))
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # the head node does no work, so the killed node was working
    settings = {"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=settings)
    for _ in range(2):
        cluster.add_node(num_cpus=3, object_store_memory=100_000_000)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    patch.undo()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_distinct_images(tmp_path_factory.mktemp("cluster"), GOOD, BAD)


def test_a_killed_node_does_not_change_the_table(
    cluster: Any, encoders: OnnxEncoders, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update_index(str(images), encoders, tmp_path / "alone")
    markers, killed = Path(os.environ[MARKERS]), []
    finished = threading.Event()

    def kill_half_way() -> None:
        """Kill a working node when some blocks are done but most are not."""
        while not finished.is_set():
            done = [marker.name.split("-")[0] for marker in markers.iterdir()]
            busy = [node for node in cluster.worker_nodes if node.node_id in done]
            if busy and len(done) >= 4:
                cluster.remove_node(busy[0], allow_graceful=False)
                killed.append((busy[0].node_id, len(done)))
                (markers / KILLED).touch()
                return
            time.sleep(0.01)  # between two checks

    monkeypatch.setattr(ray_index, "BLOCK", BLOCK)
    monkeypatch.setattr(ray_index, "RayEmbedder", MarkingEmbedder)
    killer = threading.Thread(target=kill_half_way)
    killer.start()
    try:
        report = update_index(str(images), encoders, tmp_path / "together", ray_index.on_cluster(cluster.address))
    finally:
        finished.set()
        killer.join()
    assert killed and killed[0][1] < (GOOD + BAD) / BLOCK, "no node was killed half-way"
    assert (report.added, report.kept, len(report.skipped)) == (GOOD, 0, BAD)
    assert rows(tmp_path / "together") == rows(tmp_path / "alone")
    assert read_problems(tmp_path / "together") == read_problems(tmp_path / "alone")

    # the index continues in one process, and on the cluster, now from object storage
    again = update_index(str(images), encoders, tmp_path / "together")
    assert (again.added, again.kept) == (0, GOOD)


def test_object_storage_is_indexed(cluster: Any, encoders: OnnxEncoders, images: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(images.glob("00*.png")):
        os.link(path, few / path.name)
    report = update_index(f"file://{few}", encoders, tmp_path / "index", ray_index.on_cluster(cluster.address))
    assert (report.added, len(report.skipped)) == (10, 0)
    update_index(str(few), encoders, tmp_path / "alone")
    found, expected = rows(tmp_path / "index"), rows(tmp_path / "alone")
    assert [row.pop("path") for row in found] == [f"file://{row.pop('path')}" for row in expected]
    assert found == expected
    assert update_index(f"file://{few}", encoders, tmp_path / "index").kept == 10


def test_a_bundle_missing_on_other_machines_is_one_line(
    cluster: Any, tiny_bundle: Path, images: Path, tmp_path: Path
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    encoders = OnnxEncoders(Bundle.open(bundle), "cpu", "fp32", threads=1)
    shutil.rmtree(bundle)
    with pytest.raises(
        MiniClipError, match=r"the Ray cluster gave up: .*bundle.*same path on all its machines"
    ) as error:
        update_index(str(images), encoders, tmp_path / "index", ray_index.on_cluster(cluster.address))
    assert "\n" not in str(error.value)


def test_no_cluster_is_one_line() -> None:
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(MiniClipError, match=r"no Ray cluster at 127\.0\.0\.1:1 .*start one with: ray start --head"):
        ray_index.on_cluster("127.0.0.1:1")
