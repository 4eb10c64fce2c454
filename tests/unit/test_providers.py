"""The chosen provider for each list of available ones, and the start of CUDA; lists and starts are injected."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from miniclip.errors import MiniClipError
from miniclip.inference import providers
from miniclip.inference.bundle import Bundle
from miniclip.inference.gpu_info import Card, cards_of
from miniclip.inference.onnx_encoders import OnnxEncoders, padded_batch
from miniclip.inference.precision import preferred
from miniclip.inference.providers import COREML, CPU, CUDA, DIRECTML, choose_provider, cuda_options, worth_timing

ALL = ("fp32", "fp16", "int8")


@pytest.mark.parametrize(
    ("requested", "available", "chosen", "precision", "where"),
    [
        ("coreml", (COREML, CPU), (COREML, CPU), "fp16", "the GPU (Core ML)"),
        ("directml", (DIRECTML, CPU), (DIRECTML, CPU), "fp16", "the GPU (DirectML)"),
        ("auto", (COREML, CPU), (CPU,), "int8", "the CPU"),  # Core ML is timed first
        ("auto", (DIRECTML, CPU), (CPU,), "int8", "the CPU"),
        ("auto", (CUDA, COREML, CPU), (CUDA, CPU), "fp16", "the GPU (CUDA)"),
    ],
)
def test_each_accelerator_can_be_named(
    requested: str, available: tuple[str, ...], chosen: tuple[str, ...], precision: str, where: str
) -> None:
    choice = choose_provider(requested, "auto", available, ALL)
    assert (choice.providers, choice.precision) == (chosen, precision)
    assert choice.message.startswith(f"running on {where} in {precision}")


@pytest.mark.parametrize("requested", ["cuda", "coreml", "directml"])
def test_an_accelerator_that_onnxruntime_lacks_is_refused(requested: str) -> None:
    with pytest.raises(MiniClipError, match=f"^provider {requested}: this onnxruntime has no .*; "):
        choose_provider(requested, "auto", [CPU], ALL)


@pytest.mark.parametrize("installed", [True, False])
def test_a_gpu_is_expected_if_its_runtime_is_installed(
    installed: bool, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if installed:  # its metadata is enough: the files may belong to onnxruntime
        (tmp_path / "onnxruntime_gpu-1.31.0.dist-info").mkdir()
        (tmp_path / "onnxruntime_gpu-1.31.0.dist-info/METADATA").write_text("Name: onnxruntime-gpu\nVersion: 1.31.0\n")
        monkeypatch.syspath_prepend(tmp_path)
    providers.is_gpu_expected.cache_clear()
    running_on = OnnxEncoders(Bundle.open(tiny_bundle), available=[CPU]).running_on
    providers.is_gpu_expected.cache_clear()
    assert ("no GPU is used" in running_on) == installed


def test_auto_times_core_ml_alone_and_only_without_cuda() -> None:
    assert worth_timing("auto", [COREML, CPU]) == "coreml"
    assert worth_timing("auto", [CUDA, COREML, CPU]) is None
    assert worth_timing("auto", [DIRECTML, CPU]) is None
    assert worth_timing("cpu", [COREML, CPU]) is None


def test_tf32_is_off_for_parity_and_channels_last_is_for_half_precision_convolutions() -> None:
    assert (cuda_options()["use_tf32"], cuda_options()["prefer_nhwc"]) == ("1", "0")
    assert cuda_options(exact=True)["use_tf32"] == "0"
    assert cuda_options(half_convolutions=True)["prefer_nhwc"] == "1"


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Events in order: loaded libraries, and sessions with their providers and options."""
    seen: list[Any] = []
    start = ort.InferenceSession.__init__

    def record(session: ort.InferenceSession, model: Any, options: Any, providers: Any, **others: Any) -> None:
        seen.append([entry if isinstance(entry, str) else entry[0] for entry in providers])
        seen.append({entry[0]: entry[1] for entry in providers if not isinstance(entry, str)})
        start(session, str(model) if isinstance(model, Path) else model, options, providers=[CPU], **others)

    monkeypatch.setattr(ort.InferenceSession, "__init__", record)
    monkeypatch.setattr(ort, "preload_dlls", lambda: seen.append("libraries"))
    providers.preload_cuda.cache_clear()
    yield seen
    providers.preload_cuda.cache_clear()


def test_cuda_libraries_are_loaded_once_before_the_first_session(tiny_bundle: Path, starts: list[Any]) -> None:
    OnnxEncoders(Bundle.open(tiny_bundle), "cuda", available=[CUDA, CPU])
    assert starts[:2] == ["libraries", [CUDA, CPU]]
    assert starts.count("libraries") == 1
    vision, text = (options[CUDA] for options in starts if isinstance(options, dict) and options)
    assert (vision["prefer_nhwc"], text["prefer_nhwc"]) == ("1", "0")  # the vision tower in fp16 comes first


def test_cpu_loads_no_cuda_libraries(tiny_bundle: Path, starts: list[Any]) -> None:
    OnnxEncoders(Bundle.open(tiny_bundle), "cpu", available=[CUDA, CPU])
    assert "libraries" not in starts


@pytest.mark.parametrize(("rows", "padded"), [(1, 1), (2, 2), (3, 4), (16, 16), (17, 32)])
def test_batch_is_padded_to_a_power_of_two_with_its_last_image(rows: int, padded: int) -> None:
    batch = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    filled = padded_batch(batch)
    assert filled.shape == (padded, 2)
    assert np.array_equal(filled[:rows], batch)
    assert (filled[rows:] == batch[-1]).all()


class Accelerated:
    """A stand-in for an accelerator: a session that claims one, and records its batches."""

    def __init__(self, session: ort.InferenceSession, provider: str) -> None:
        self.session, self.provider = session, provider
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def get_providers(self) -> list[str]:
        return [self.provider, CPU]

    def run(self, outputs: list[str], feeds: dict[str, np.ndarray]) -> Any:
        self.batches.append(len(next(iter(feeds.values()))))
        return self.session.run(outputs, feeds)


class OnAccelerator(OnnxEncoders):
    """The real encoders; only the device is replaced, and each pass takes `seconds`."""

    seconds = (1.0, 1.0)  # on the CPU, on the accelerator

    def _open(self, tower: str, threads: int) -> Any:
        if self.choice.providers == (CPU,):
            return super()._open(tower, threads)
        asked, self.choice = self.choice, self._on_cpu
        try:
            return Accelerated(super()._open(tower, threads), asked.providers[0])
        finally:
            self.choice = asked

    def measure_seconds(self) -> float:
        return self.seconds[self.on_gpu]


def test_last_batch_on_a_gpu_is_padded_and_only_its_own_rows_come_back(tiny_bundle: Path, image_folder: Path) -> None:
    encoders = OnAccelerator(Bundle.open(tiny_bundle), "cuda", "fp32", available=[CUDA, CPU])
    images = sorted(image_folder.iterdir())
    images = [path for path in images if path.suffix in (".png", ".jpg")][:11]
    rows, embeds = encoders.encode_images(images, batch_size=8)
    assert len(rows) == len(embeds) == 11
    assert encoders._sessions["vision"].batches[-2:] == [8, 4]
    expected = OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32").encode_images(images)[1]
    np.testing.assert_allclose(embeds, expected, atol=1e-5)


@pytest.mark.parametrize(("seconds", "provider"), [((2.0, 1.0), COREML), ((1.0, 2.0), CPU), ((1.0, 1.0), CPU)])
def test_auto_uses_core_ml_only_if_it_is_faster(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], provider: str
) -> None:
    monkeypatch.setattr(OnAccelerator, "seconds", seconds)
    encoders = OnAccelerator(Bundle.open(tiny_bundle), "auto", available=[COREML, CPU])
    assert encoders.providers[0] == provider
    assert encoders.precision == ("fp16" if provider == COREML else "int8")
    assert ("Core ML was slower" in encoders.running_on) == (provider == CPU)


def test_the_cpu_is_used_if_core_ml_does_not_start(tiny_bundle: Path, starts: list[Any]) -> None:
    encoders = OnnxEncoders(Bundle.open(tiny_bundle), "auto", available=[COREML, CPU])
    assert (encoders.providers, encoders.precision) == ((CPU,), "int8")
    assert "libraries" not in starts


def test_cards_are_read_from_the_drivers_report() -> None:
    report = "NVIDIA H100 80GB HBM3, 81559, 80000, 570.86.15\nTesla T4, 15360, [N/A], 570.86.15\n"
    assert cards_of(report) == [Card("NVIDIA H100 80GB HBM3", 81559, 80000, "570.86.15")]
    assert cards_of("No devices were found\n") == []


def test_info_names_the_card_and_the_provider(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from miniclip.cli.main import run

    assert run(["info", str(tiny_bundle), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {"card", "cuda", "providers", "running"} <= set(facts)


def test_the_table_determines_the_order_of_precisions() -> None:
    assert preferred(on_gpu=False) == ["int8", "fp32", "fp16"]
    assert preferred(on_gpu=True) == ["fp16", "fp32", "int8"]
