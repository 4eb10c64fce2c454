"""If a GPU fails while it works, the CPU continues, one line says so, and the answers are correct."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.providers import CPU, CUDA
from miniclip.search.device_search import DeviceSearch
from miniclip.search.exact import ExactSearch

TEXTS = [f"a red dog {number}" for number in range(24)]


class FailingSession:
    """A stand-in for the GPU: a session that claims CUDA, and fails after a number of runs."""

    def __init__(self, session: Any, runs: int) -> None:
        self._session, self.left = session, runs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> Any:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("CUDA failure 2: out of memory\nat line 7")
        return self._session.run(outputs, feeds)


class OnFailingGpu(OnnxEncoders):
    """The real encoders; only the part that CUDA would provide is replaced."""

    runs = 2

    def _open(self, tower: str, threads: int) -> Any:
        if CUDA not in self.choice.providers:
            return super()._open(tower, threads)
        asked, self.choice = self.choice, self._on_cpu
        try:
            return FailingSession(super()._open(tower, threads), self.runs)
        finally:
            self.choice = asked


@pytest.fixture(scope="module")
def on_cpu(tiny_bundle: Path) -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(tiny_bundle), "cpu", threads=1)


def on_gpu(bundle: Path, **options: Any) -> OnFailingGpu:
    return OnFailingGpu(Bundle.open(bundle), "cuda", threads=1, available=[CUDA, CPU], **options)


def test_a_failing_gpu_is_replaced_by_the_cpu_with_one_line(
    tiny_bundle: Path, on_cpu: OnnxEncoders, capsys: pytest.CaptureFixture[str]
) -> None:
    encoders = on_gpu(tiny_bundle)
    assert (encoders.running_on, encoders.precision) == ("running on the GPU (CUDA) in fp16", "fp16")
    embeds = np.vstack([encoders.encode_texts([text]) for text in TEXTS])
    assert encoders.running_on == "running on the CPU in int8: the GPU was requested, but CUDA failed"
    assert (encoders.providers, encoders.precision) == ((CPU,), "int8")
    expected = np.vstack([on_cpu.encode_texts([text]) for text in TEXTS])
    assert np.array_equal(embeds[encoders.runs :], expected[encoders.runs :])
    said = capsys.readouterr().err
    assert said == "the GPU failed, continuing on the CPU: CUDA failure 2: out of memory at line 7\n"


def test_images_continue_on_the_cpu(tiny_bundle: Path, on_cpu: OnnxEncoders, image_folder: Path) -> None:
    images = sorted(image_folder.glob("*.png"))
    encoders = on_gpu(tiny_bundle)
    for _ in range(encoders.runs + 1):
        _, embeds = encoders.encode_images(images)
    assert CUDA not in encoders.providers and not encoders.wants_batches
    assert np.array_equal(embeds, on_cpu.encode_images(images)[1])


def test_threads_that_fail_together_fall_back_once(
    tiny_bundle: Path, on_cpu: OnnxEncoders, capsys: pytest.CaptureFixture[str]
) -> None:
    encoders = on_gpu(tiny_bundle)
    encoders.encode_texts(TEXTS[:1])
    encoders.encode_texts(TEXTS[:1])  # no run remains
    with ThreadPoolExecutor(16) as pool:
        embeds = np.vstack(list(pool.map(lambda text: encoders.encode_texts([text]), TEXTS)))
    assert np.array_equal(embeds, np.vstack([on_cpu.encode_texts([text]) for text in TEXTS]))
    assert capsys.readouterr().err.count("continuing on the CPU") == 1


def test_strict_does_not_fall_back(tiny_bundle: Path) -> None:
    encoders = on_gpu(tiny_bundle, strict=True)
    with pytest.raises(MiniClipError, match="the GPU was requested, but CUDA failed; check the driver"):
        for text in TEXTS:
            encoders.encode_texts([text])


def test_a_failing_cpu_is_not_retried(on_cpu: OnnxEncoders) -> None:
    with pytest.raises(Exception, match="input_ids"):
        on_cpu.embed_tokens(np.zeros((1, 2, 3), np.int64), np.zeros((1, 2), np.int64))


@pytest.fixture
def gpu_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every search on the device fails, as if it lacked the memory."""

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(DeviceSearch, "_run", fail)


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.usefixtures("gpu_without_memory")
def test_gallery_on_a_failing_gpu_answers_from_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    embeds = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
    gallery, expected = ExactSearch(embeds, (CUDA, CPU)), ExactSearch(embeds)
    for _ in range(2):
        for found, wanted in zip(gallery.top_k(embeds[:3], 5), expected.top_k(embeds[:3], 5), strict=True):
            assert np.array_equal(found, wanted)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0].startswith("the GPU cannot search the gallery in float32, trying float16: CUDA failure 2")
    assert said[1].startswith("the GPU failed during a search, continuing on the CPU: CUDA failure 2")
    assert gallery._on_device is None  # the encoders may need that memory


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.usefixtures("gpu_without_memory")
def test_searches_that_fail_together_leave_the_gpu_once(capsys: pytest.CaptureFixture[str]) -> None:
    embeds = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
    gallery, (_, rows) = ExactSearch(embeds, (CUDA, CPU)), ExactSearch(embeds).top_k(embeds, 1)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda row: gallery.top_k(embeds[row : row + 1], 1), range(len(embeds))))
    assert np.array_equal(np.vstack([own for _, own in found]), rows)
    assert capsys.readouterr().err.count("continuing on the CPU") == 1


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_query_of_another_model_does_not_count_as_a_gpu_failure(capsys: pytest.CaptureFixture[str]) -> None:
    gallery = ExactSearch(np.eye(16, dtype=np.float32), (CUDA, CPU))
    with pytest.raises(ValueError, match="queries of 8 dimensions, a gallery of 16"):
        gallery.top_k(np.ones((1, 8), dtype=np.float32), 5)
    assert gallery._on_device is not None
    assert capsys.readouterr().err == ""


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize(("fits", "where"), [((np.float16,), "cpu float16"), ((), "cpu float32")])
def test_gallery_that_does_not_fit_the_gpu_is_kept_in_float16_or_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fits: tuple[type, ...], where: str
) -> None:
    put = ort.OrtValue.ortvalue_from_numpy

    def allocate(values: np.ndarray, *device: object) -> ort.OrtValue:
        if values.dtype not in fits:
            raise RuntimeError("CUDA failure 2: out of memory")
        return put(values, *device)

    embeds = np.random.default_rng(0).standard_normal((5000, 16)).astype(np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(ort.OrtValue, "ortvalue_from_numpy", allocate)
        gallery = ExactSearch(embeds, (CUDA, CPU))
    said = capsys.readouterr().err
    assert "cannot search the gallery in float32, trying float16: CUDA failure 2: out of memory" in said
    assert ("continuing on the CPU" in said) == (not fits)
    assert gallery.where == where
    found, wanted = gallery.top_k(embeds[:3], 5), ExactSearch(embeds).top_k(embeds[:3], 5)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)
    assert np.array_equal(found[1], wanted[1])
