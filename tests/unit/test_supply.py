"""The supply chain: hashes for every package, no pickle, and complete, checked models."""

import ast
import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from miniclip.errors import MiniClipError
from miniclip.inference.bundle import Bundle
from miniclip.inference.layouts import onnx_name
from miniclip.inference.manifest import list_files
from miniclip.inference.onnx_encoders import OnnxEncoders
from tests.support.cli import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCKED = {
    "requirements.lock": ("cpu", "demo", "train", "dev"),
    "requirements-slow.lock": ("cpu", "demo", "train", "dev"),
}
LOCKED["requirements-slow.lock"] += ("ray", "heic")
NOT_LOCKED = {
    "gpu",
    "datasets",
    "wandb",
    "map",
    "ocr",
    "video",  # locked all the same, by dev
    "mcp",  # by dev, too
    "jxl",  # by dev, too
}  # extras that no target of the Makefile installs with LOCKED=1
ROOMS = ("miniclip", "train", "export", "demo", "benchmarks", "docs")
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def read_lock(name: str) -> dict[str, tuple[str, int]]:
    """Package -> version, number of hashes."""
    found = {}
    for entry in re.split(r"\n(?=\S)", (REPOSITORY / name).read_text(encoding="utf-8")):
        if pinned := re.match(r"([\w.-]+)==(\S+)", entry):
            found[canonicalize_name(pinned[1])] = pinned[2], len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry))
    return found


@pytest.mark.parametrize("name", LOCKED)
def test_every_dependency_is_locked_with_hashes_at_an_allowed_version(name: str) -> None:
    locked = read_lock(name)
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    wanted += [one for extra in LOCKED[name] for one in EXTRAS[extra]]
    assert len(locked) > len(wanted) > 30
    for requirement in map(Requirement, wanted):
        version, _ = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}: make lock"
    assert {package for package, (_, hashes) in locked.items() if not hashes} == set()


def test_every_extra_is_locked_or_listed_as_not_locked() -> None:
    assert set(EXTRAS) == set(LOCKED["requirements-slow.lock"]) | NOT_LOCKED


@pytest.mark.parametrize("name", LOCKED)
def test_the_lock_names_no_server_and_no_folder(name: str) -> None:
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted|@ ", (REPOSITORY / name).read_text())


def test_the_slow_lock_only_adds_to_the_other() -> None:
    assert read_lock("requirements.lock").items() <= read_lock("requirements-slow.lock").items()


def test_a_minimum_version_names_its_advisory() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for package in ("onnx", "pillow", "pyarrow", "gradio", "python-multipart", "torch", "transformers"):
        (before, line) = re.search(rf'((?:    #.*\n)*)(    "{package}[>=].*)', text).groups()  # type: ignore[union-attr]
        assert re.search(r"CVE-\d{4}-\d{4,}|GHSA(-\w{4}){3}", before + line), package


# opened files


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((REPOSITORY / room).rglob("*.py"))]


def unsafe(tree: ast.AST) -> list[str]:
    """Calls and imports that let a file run code, each as text."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in UNPICKLERS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            options = {one.arg: one.value for one in node.keywords}
            called = ast.unparse(node.func)
            value = options.get("weights_only")
            if called == "torch.load" and not (isinstance(value, ast.Constant) and value.value is True):
                found.append(ast.unparse(node))
            if called in ("torch.jit.load", "torch.package.PackageImporter", "eval", "exec"):
                found.append(ast.unparse(node))
            allowed = options.get("allow_pickle")
            if allowed is not None and not (isinstance(allowed, ast.Constant) and allowed.value is False):
                found.append(ast.unparse(node))
            if "trust_remote_code" in options and ast.unparse(options["trust_remote_code"]) != "False":
                found.append(ast.unparse(node))
    return found


def test_sources_unpickle_only_weights() -> None:
    assert len(sources()) > 80
    found = {
        str(path.relative_to(REPOSITORY)): unsafe(ast.parse(path.read_text(encoding="utf-8"))) for path in sources()
    }
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "np.load(path, allow_pickle=True)",
        "torch.jit.load(path)",
        "eval(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_search_for_unsafe_calls_finds_them(code: str) -> None:
    assert unsafe(ast.parse(code))


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_a_changed_byte_is_refused_before_onnxruntime_opens_the_file(
    tower: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    real = onnxruntime.InferenceSession

    def watched(model: Path | bytes, *arguments: object, **options: object) -> object:
        if not isinstance(model, bytes):
            seen.append(Path(model).name)
        return real(model, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    name = onnx_name(tower, "fp32")
    content = bytearray((bundle / name).read_bytes())
    content[-1] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(MiniClipError, match="does not match its SHA-256"):
        OnnxEncoders(Bundle.open(bundle), "cpu", "fp32", threads=1)
    assert Path(name).name not in seen


@pytest.mark.parametrize(("has_manifest", "is_odd"), [(True, False), (False, False), (False, True)])
def test_model_with_external_data_is_refused(has_manifest: bool, is_odd: bool, bundle: Path, tmp_path: Path) -> None:
    """Even if a manifest has the model's hash: the file beside it would be read unchecked.

    Also in an unusual encoding: protobuf accepts two bytes for a length of eight.
    """
    name = onnx_name("vision", "fp32")
    model = onnx.load(bundle / name)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4 << 20))
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    array = onnx.numpy_helper.to_array(largest)
    assert isinstance(array, np.ndarray) and array.nbytes < 4 << 20
    largest.ClearField("raw_data")
    largest.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../../secret"), ("length", str(array.nbytes))):
        largest.external_data.add(key=key, value=value)
    content = model.SerializeToString()
    plain, odd = b"\x0a\x08location\x12\x0c../../secret", b"\x0a\x88\x00location\x12\x0b.././secret"
    assert plain in content
    (bundle / name).write_bytes(content.replace(plain, odd) if is_odd else content)
    if has_manifest:
        manifest = json.loads((bundle / "manifest.json").read_text())
        (bundle / "manifest.json").write_text(json.dumps({**manifest, "files": list_files(bundle)}))
    else:
        (bundle / "manifest.json").unlink()
    with pytest.raises(MiniClipError, match=r"keeps weights in other files.*export the bundle again"):
        OnnxEncoders(Bundle.open(bundle), "cpu", "fp32", threads=1)
