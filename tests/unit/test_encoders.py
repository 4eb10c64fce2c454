"""The onnxruntime encoders: the choice of provider; batches, threads and order do not change embeddings."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.onnx_encoders import OnnxEncoders
from miniclip.inference.providers import CPU, CUDA, choose_provider, session_options

ALL = ("fp32", "fp16", "int8")
TEXTS = [" ".join(["red", "dog", "circle", "a"][: 1 + row % 4] * (1 + row % 3)) + f" {row}" for row in range(40)]


@pytest.fixture(scope="module")
def encoders(tiny_bundle: Path) -> OnnxEncoders:
    return OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "fp32", threads=1)


@pytest.fixture(scope="module")
def images(image_folder: Path) -> list[Path]:
    return sorted(path for path in image_folder.iterdir() if path.suffix in (".png", ".jpg"))


# the choice among given providers


@pytest.mark.parametrize(
    ("requested", "precision", "available", "precisions", "providers", "chosen"),
    [
        ("auto", "auto", (CUDA, CPU), ALL, (CUDA, CPU), "fp16"),
        ("auto", "auto", (CUDA, CPU), ("fp32", "int8"), (CUDA, CPU), "fp32"),
        ("auto", "auto", (CUDA, CPU), ("int8",), (CUDA, CPU), "int8"),
        ("auto", "auto", (CPU,), ALL, (CPU,), "int8"),
        ("auto", "auto", (CPU,), ("fp32", "fp16"), (CPU,), "fp32"),
        ("auto", "auto", (CPU,), ("fp16",), (CPU,), "fp16"),
        ("cuda", "auto", (CUDA, CPU), ALL, (CUDA, CPU), "fp16"),
        ("cuda", "int8", (CUDA, CPU), ALL, (CUDA, CPU), "int8"),
        ("cpu", "auto", (CUDA, CPU), ALL, (CPU,), "int8"),
        ("cpu", "fp16", (CUDA, CPU), ALL, (CPU,), "fp16"),
        ("auto", "fp32", (CPU,), ALL, (CPU,), "fp32"),
    ],
)
def test_choice(
    requested: str,
    precision: str,
    available: tuple[str, ...],
    precisions: tuple[str, ...],
    providers: tuple[str, ...],
    chosen: str,
) -> None:
    choice = choose_provider(requested, precision, available, precisions)
    assert (choice.providers, choice.precision) == (providers, chosen)
    where = "the GPU (CUDA)" if CUDA in providers else "the CPU"
    assert choice.message.startswith(f"running on {where} in {chosen}")
    assert "no GPU is used" not in choice.message
    expecting = choose_provider(requested, precision, available, precisions, expects_gpu=True)
    assert ("no GPU is used" in expecting.message) == (requested == "auto" and CUDA not in available)


@pytest.mark.parametrize(
    ("requested", "precision", "words"),
    [
        ("gpu", "auto", "provider must be one of auto, cuda, coreml, directml, cpu, got gpu"),
        ("cuda", "auto", "provider cuda: this onnxruntime has no CUDA; replace it with onnxruntime-gpu (docs/gpu.md)"),
        ("cpu", "fp16", "precision fp16: the bundle has fp32, int8"),
        ("auto", "best", "precision best: the bundle has fp32, int8"),
    ],
)
def test_impossible_choice_is_one_line(requested: str, precision: str, words: str) -> None:
    with pytest.raises(MiniClipError) as refused:
        choose_provider(requested, precision, [CPU], ["fp32", "int8"])
    assert str(refused.value) == words


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_that_does_not_start_gives_a_warning_and_the_cpu_precision(tiny_bundle: Path) -> None:
    """`available` claims CUDA although there is none, as onnxruntime-gpu does on a machine without a driver."""
    if OnnxEncoders(Bundle.open(tiny_bundle), "auto").providers[0] == CUDA:
        pytest.skip("CUDA starts on this machine")
    encoders = OnnxEncoders(Bundle.open(tiny_bundle), "auto", available=[CUDA, CPU])
    assert (encoders.providers, encoders.precision) == ((CPU,), "int8")
    assert encoders.running_on == "running on the CPU in int8: the GPU was requested, but CUDA did not start"
    assert OnnxEncoders(Bundle.open(tiny_bundle), "cuda", "fp16", available=[CUDA, CPU]).precision == "fp16"
    with pytest.raises(MiniClipError, match="CUDA did not start; check the driver, or omit --strict"):
        OnnxEncoders(Bundle.open(tiny_bundle), "cuda", strict=True, available=[CUDA, CPU])


def test_a_driver_failure_is_one_line_on_standard_error(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing driver raises an error; onnxruntime alone would print it into the results of a search."""
    starts = ort.InferenceSession._create_inference_session

    def start(session: ort.InferenceSession, providers: list[str], *others: object) -> None:
        if CUDA in providers:
            raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient")
        starts(session, providers, *others)

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", start)
    encoders = OnnxEncoders(Bundle.open(tiny_bundle), "cuda", available=[CUDA, CPU])
    assert (encoders.providers, encoders.precision) == ((CPU,), "int8")
    reported = "the GPU was requested, but CUDA did not start; continuing on the CPU\n"
    assert tuple(capsys.readouterr()) == ("", reported)


def test_cuda_where_there_is_none_is_one_line(tiny_bundle: Path) -> None:
    with pytest.raises(MiniClipError, match="this onnxruntime has no CUDA"):
        OnnxEncoders(Bundle.open(tiny_bundle), "cuda", available=[CPU])


# embeddings


def test_8_bit_products_are_exact_on_every_cpu() -> None:
    """The largest products: a CPU without VNNI adds two of them in 16 bits, which hold at most 32,767."""
    weight = numpy_helper.from_array(np.full((64, 8), 127, dtype=np.int8), "weight")
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 64])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.INT32, ["N", 8])]
    product = helper.make_node("MatMulInteger", ["x", "weight"], ["y"])
    graph = helper.make_graph([product], "product", inputs, outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), session_options(), providers=[CPU])
    (y,) = session.run(None, {"x": np.full((3, 64), 255, dtype=np.uint8)})
    assert y.tolist() == [[64 * 255 * 127] * 8] * 3


@pytest.mark.parametrize("precision", ALL)
def test_every_precision_gives_unit_float32_rows(precision: str, tiny_bundle: Path, images: list[Path]) -> None:
    encoders = OnnxEncoders(Bundle.open(tiny_bundle), "cpu", precision, threads=1)
    encoders.warm_up()
    for embeds in (encoders.encode_texts(TEXTS[:5]), encoders.encode_images(images[:5])[1]):
        assert (embeds.shape, embeds.dtype) == ((5, encoders.dim), np.float32)
        assert np.linalg.norm(embeds, axis=1) == pytest.approx(np.ones(5), abs=2e-3)


@pytest.mark.parametrize("batch_size", [1, 3, 16, 64])
def test_batches_do_not_change_the_rows_of_texts(encoders: OnnxEncoders, batch_size: int) -> None:
    one_by_one = np.vstack([encoders.encode_texts([text]) for text in TEXTS])
    assert np.abs(encoders.encode_texts(TEXTS, batch_size) - one_by_one).max() < 1e-5
    assert len(np.unique(one_by_one.round(4), axis=0)) > 5  # texts differ, so a swapped row would show


def test_several_cores_do_not_change_the_rows_of_texts(encoders: OnnxEncoders) -> None:
    several = OnnxEncoders(encoders.bundle, "cpu", "fp32", threads=3)
    for count in (5, 40):
        one_by_one = np.vstack([encoders.encode_texts([text]) for text in TEXTS[:count]])
        assert np.abs(several.encode_texts(TEXTS[:count]) - one_by_one).max() < 1e-5


def test_batches_do_not_change_the_rows_of_images(encoders: OnnxEncoders, images: list[Path]) -> None:
    rows, one_by_one = encoders.encode_images(images, batch_size=1)
    assert rows.tolist() == list(range(12))
    for batch_size in (3, 16):
        assert np.abs(encoders.encode_images(images, batch_size=batch_size)[1] - one_by_one).max() < 1e-5
    assert len(np.unique(one_by_one.round(4), axis=0)) > 5


def test_empty_input_gives_an_empty_array(encoders: OnnxEncoders) -> None:
    assert encoders.encode_texts([]).shape == (0, encoders.dim)
    rows, embeds = encoders.encode_images([])
    assert (rows.shape, embeds.shape) == ((0,), (0, encoders.dim))


def test_an_unreadable_image_is_skipped_and_named(encoders: OnnxEncoders, images: list[Path]) -> None:
    reported: dict[int, str] = {}
    done: list[int] = []
    sources = [images[0], b"no image", images[1], Path("none.jpg"), images[2]]
    rows, embeds = encoders.encode_images(sources, reported.__setitem__, batch_size=2, progress=done.append)
    assert rows.tolist() == [0, 2, 4] and sum(done) == 3
    assert np.abs(embeds - encoders.encode_images(images[:3])[1]).max() < 1e-5
    assert reported[3] == "no such file" and "not an image" in reported[1]
    with pytest.raises(MiniClipError, match=r"^none\.jpg: no such file$"):
        encoders.encode_images([images[0], Path("none.jpg")])
    with pytest.raises(MiniClipError, match=r"^the picture: not an image"):
        encoders.encode_images([b"no image"])


def test_eight_threads_get_the_same_embeddings_as_one(encoders: OnnxEncoders, images: list[Path]) -> None:
    texts = [encoders.encode_texts([text]) for text in TEXTS]
    embeds = [encoders.encode_images([path])[1] for path in images]
    with ThreadPoolExecutor(8) as pool:
        threaded_texts = list(pool.map(lambda text: encoders.encode_texts([text]), TEXTS * 3))
        threaded_images = list(pool.map(lambda path: encoders.encode_images([path])[1], images * 3))
    assert np.array_equal(np.vstack(threaded_texts), np.vstack(texts * 3))
    assert np.array_equal(np.vstack(threaded_images), np.vstack(embeds * 3))


def test_threads_open_a_tower_once(tiny_bundle: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    encoders = OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "int8", threads=8)
    opened: list[str] = []
    opens = encoders._open
    monkeypatch.setattr(encoders, "_open", lambda tower, threads: opened.append(tower) or opens(tower, threads))
    encoders.encode_images(images)
    encoders.encode_texts(TEXTS)
    assert opened == ["vision", "text"]


def test_the_embedding_of_an_image_does_not_depend_on_its_batch(tiny_bundle: Path, images: list[Path]) -> None:
    """A stand-in for the tower whose outputs depend on the whole batch, as dynamic scales do."""
    nodes = [
        helper.make_node("ReduceMax", ["pixel_values"], ["largest"]),
        helper.make_node("Sub", ["pixel_values", "largest"], ["shifted"]),
        helper.make_node("ReduceMean", ["shifted", "places"], ["image_embeds"], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["B", 3, "H", "W"])]
    outputs = [helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["B", 3])]
    places = numpy_helper.from_array(np.array([2, 3]), "places")
    graph = helper.make_graph(nodes, "tower", inputs, outputs, [places])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    tower = ort.InferenceSession(model.SerializeToString(), session_options(1), providers=[CPU])
    encoders = OnnxEncoders(Bundle.open(tiny_bundle), "cpu", "int8", threads=2)
    encoders._sessions["vision"] = encoders._on_one_core["vision"] = tower
    pixel_values = np.stack([encoders.transform.load(path) * (1 + row) for row, path in enumerate(images[:3])])
    together = encoders.embed_pixels(pixel_values)
    assert np.array_equal(together, np.vstack([encoders.embed_pixels(pixel_values[row : row + 1]) for row in range(3)]))
