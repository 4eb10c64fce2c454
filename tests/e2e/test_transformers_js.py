"""An exported bundle in transformers.js under Node: tokens, pixels and embeddings are those of `OnnxEncoders`.

npm installs the locked packages of `node/` once (ten seconds, 330 MB, removed afterwards). No install script runs:
`onnxruntime-node` brings its CPU binaries; `onnxruntime-web`, which Node never loads, is left out by an override.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from miniclip.data.images import open_image
from miniclip.files import write_json
from miniclip.inference.bundle import Bundle
from miniclip.inference.manifest import list_files
from miniclip.inference.onnx_encoders import OnnxEncoders

NODE_FILES = Path(__file__).parent / "node"
NPM_CI = "npm ci --ignore-scripts --no-audit --no-fund --prefer-offline --loglevel=error --fetch-retries=1"
OWN_FAULTS = ("EUSAGE", "EINTEGRITY", "EJSONPARSE", "EBADENGINE")  # errors of npm that node/ itself causes
DTYPES = {"fp32": "fp32", "fp16": "fp16", "int8": "q8"}  # ours -> theirs
TOLERANCE = 1e-3
PIECES = ("##s", "##le", "tri", "##angle", ",", ".", "!", "'", "crocodi", "5", "##0")
TEXTS = [
    "A red circle on white.",
    "two BIG dogs, and cats!",
    "thé photo of a crocodile's triangle",  # an accent, an apostrophe, words of several tokens
    "zebra",  # unknown
    "50",
    "",
    "the small yellow square on the big green triangle, and a blue cat",  # exactly max_tokens with its special tokens
]


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `embed.mjs` and its imports."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    if int(version.strip().lstrip("v").partition(".")[0]) < 20:
        pytest.skip(f"transformers.js needs Node 20, here is {version.strip()}")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "embed.mjs"):
        shutil.copyfile(NODE_FILES / name, folder / name)
    try:
        done = subprocess.run(NPM_CI.split(), cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            code = re.search(r"code (E\w+)", done.stderr)
            assert code and code[1] not in OWN_FAULTS, done.stderr
            pytest.skip(f"npm cannot install transformers.js here: {code[1]}")
        yield folder
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install transformers.js within five minutes")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The exported bundle with a WordPiece tokenizer, because transformers.js has no word-level tokenizer."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("models") / "tiny"))
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocabulary = words.get_vocab()
    vocabulary |= {piece: len(vocabulary) + number for number, piece in enumerate(PIECES)}
    pieces = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    pieces.normalizer, pieces.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    pieces.post_processor, pieces.decoder = words.post_processor, decoders.WordPiece()
    pieces.save(str(folder / "tokenizer.json"))
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", {**manifest, "files": list_files(folder)})
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def image(bundle: Bundle, image_folder: Path) -> np.ndarray:
    """RGB bytes (H, W, 3) of an image of the model's size, because the two libraries resize differently."""
    return np.asarray(bundle.transform.fit(open_image(sorted(image_folder.glob("*.png"))[0])))


@pytest.fixture(scope="module")
def pixel_values(bundle: Bundle, image_folder: Path) -> np.ndarray:
    return np.stack([bundle.transform.load(path) for path in sorted(image_folder.glob("*.png"))[:4]])


@pytest.fixture(scope="module", params=DTYPES)
def ours(request: pytest.FixtureRequest, bundle: Bundle) -> OnnxEncoders:
    return OnnxEncoders(bundle, "cpu", request.param, threads=1)


@pytest.fixture(scope="module")
def theirs(ours: OnnxEncoders, node_folder: Path, image: np.ndarray, pixel_values: np.ndarray) -> dict[str, Any]:
    """The answer of `embed.mjs` at the same precision."""
    folder = ours.bundle.folder.resolve()
    request = {
        "models": f"{folder.parent}/",
        "bundle": folder.name,
        "dtype": DTYPES[ours.precision],
        "texts": TEXTS,
        "pixel_values": {"data": pixel_values.ravel().tolist(), "dims": pixel_values.shape},
        "picture": {"data": image.ravel().tolist(), "width": image.shape[1], "height": image.shape[0]},
    }
    done = subprocess.run(
        ["node", "embed.mjs"],
        cwd=node_folder,
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: np.asarray(values) for name, values in json.loads(done.stdout).items()}


def assert_same_rows(theirs: np.ndarray, ours: np.ndarray) -> None:
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).max() <= TOLERANCE


def assert_rows_differ(embeds: np.ndarray) -> None:
    """Rows differ much more than the tolerance, so a swapped row or an ignored input would fail."""
    apart = np.abs(embeds[:, None] - embeds[None]).max(axis=2)
    assert apart[~np.eye(len(embeds), dtype=bool)].min() > 10 * TOLERANCE


def test_tokens_of_texts_are_equal(ours: OnnxEncoders, theirs: dict[str, Any]) -> None:
    input_ids, attention_mask = ours.tokenizer(TEXTS)
    assert input_ids.shape == (len(TEXTS), ours.tokenizer.max_tokens)
    assert np.array_equal(theirs["input_ids"], input_ids)
    assert np.array_equal(theirs["attention_mask"], attention_mask)


def test_embeddings_of_texts_are_equal(ours: OnnxEncoders, theirs: dict[str, Any]) -> None:
    embeds = ours.encode_texts(
        TEXTS, batch_size=len(TEXTS)
    )  # as in transformers.js: dynamic scales depend on the batch
    assert_rows_differ(embeds)
    assert_same_rows(theirs["text_embeds"], embeds)


def test_equal_pixels_give_equal_embeddings(
    ours: OnnxEncoders, theirs: dict[str, Any], pixel_values: np.ndarray
) -> None:
    embeds = ours.embed_pixels(pixel_values)
    assert_rows_differ(embeds)
    assert_same_rows(theirs["image_embeds"], embeds)


def test_image_of_the_models_size_gets_the_same_pixels_and_embedding(
    ours: OnnxEncoders, theirs: dict[str, Any], image: np.ndarray
) -> None:
    pixel_values = ours.transform(Image.fromarray(image))[None]
    assert theirs["processed"].shape == pixel_values.shape
    assert np.abs(theirs["processed"] - pixel_values).max() < 1e-5
    assert_same_rows(theirs["picture_embeds"], ours.embed_pixels(pixel_values))
