"""Find a bundle: the one that ships, a folder, or a name on the Hugging Face hub.

In: the value of `--bundle`, or nothing. Out: a folder for `Bundle.open`. Only names on the hub need the network.
A bundle from the hub stays in the hub's own cache, in a folder named after its commit. An index records this folder. So
it keeps using that commit, even offline, and downloads the same commit again if the cache was emptied.
"""

import os
import re
from pathlib import Path
from typing import Any

from miniclip.errors import MiniClipError, first_line
from miniclip.files import expand
from miniclip.inference.bundle import SNAPSHOT, is_bundle, list_names
from miniclip.inference.layouts import EXTERNAL_DATA, TOWERS, Layout, find_layout, other_graphs
from miniclip.inference.manifest import sha256_of
from miniclip.inference.precision import PRECISIONS, is_among, of_tower

RELEASED = "miniclip-s"
PART = r"[A-Za-z0-9_][\w.-]*"
HUB_NAME = re.compile(rf"(?:hf:)?({PART}/{PART})(?:/({PART}(?:/{PART})*))?(?:@([\w./-]+))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
LARGE_FILE = re.compile(r"[0-9a-f]{64}")  # the cache names a large file after its SHA-256


def released_bundle() -> Path:
    """The bundle that ships: inside the installed package, or `models/` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    places = (package / "released" / RELEASED, package.parent / "models" / RELEASED)
    for folder in places:
        if (folder / "manifest.json").is_file():
            return folder
    raise MiniClipError("the bundle that ships with MiniCLIP is missing; install it again, or name one with --bundle")


def released_bundles() -> list[Path]:
    """Every bundle that ships."""
    return sorted(file.parent for file in released_bundle().parent.glob("*/manifest.json"))


def find_bundle(name: str | Path | None, precision: str = "auto") -> Path:
    """The folder of a bundle. Without a name, it is the bundle that ships.

    A name is a folder, a bundle that ships, `USER/NAME[@REVISION]`, or `hf:USER/NAME/SUBFOLDER[@REVISION]`.
    Errors: `MiniClipError` when the hub has no bundle of that name, or cannot be reached.
    """
    if name is None:
        return released_bundle()
    folder = expand(name)
    if folder.exists():
        return folder
    for shipped in released_bundles() if str(name) == Path(name).name else ():
        if shipped.name == str(name):
            return shipped
    if cached := SNAPSHOT.fullmatch(Path(os.path.abspath(folder)).as_posix()):  # an index names it, but it is gone
        return _download(
            f"{cached['user']}/{cached['name']}", (cached["inside"] or "").strip("/"), cached["commit"], precision
        )
    match = HUB_NAME.fullmatch(str(name))
    if match is None or ".." in str(name) or (match[2] and not str(name).startswith("hf:")):
        return folder
    return _download(match[1], match[2] or "", match[3], precision)


def names_bundle(name: str | Path) -> bool:
    """Whether this is a bundle's folder or name; if not, it may belong to a run."""
    try:
        return is_bundle(find_bundle(name))
    except MiniClipError:
        return False


def _download(name: str, inside: str, revision: str | None, precision: str) -> Path:
    """The snapshot of a repository, or its folder `inside`, with the files that a bundle needs.

    Without a network, an earlier download is used.
    """
    from huggingface_hub import HfApi, snapshot_download

    if revision and COMMIT.fullmatch(revision) and (folder := _cached(name, inside, revision, precision)):
        return folder
    try:
        info = HfApi().model_info(name, revision=revision, timeout=10)
    except Exception as error:  # the client, its HTTP library and the disk raise different types
        folder = None if _is_refusal(error) else _cached(name, inside, revision)
        if folder is None:
            raise _no_bundle(name, error) from error
        return folder
    names = [str(file.rfilename) for file in info.siblings or []]
    layout = find_layout(_seen_from(inside, names))
    if layout is None:
        held = other_graphs([own for own in names if own.startswith(f"{inside}/" if inside else "")])
        raise MiniClipError(f"{name}{'/' if inside else ''}{inside} on the hub is not a bundle for MiniCLIP: {held}")
    wanted = _wanted(layout, inside, names, precision)
    try:
        # each pattern matches one file, and the client draws a progress bar for each call
        snapshot = Path(snapshot_download(name, revision=info.sha, allow_patterns=wanted, etag_timeout=10))
        _remember(snapshot, revision)
        for file in wanted:
            _check(snapshot / file, name)
    except MiniClipError:
        raise
    except Exception as error:  # as above
        if _is_refusal(error):
            raise _no_bundle(name, error) from error
        raise MiniClipError(
            f"{name} was not downloaded completely ({first_line(error)}); run the command again"
        ) from error
    return snapshot / inside


def _seen_from(inside: str, names: list[str]) -> list[str]:
    """The files of a repository as paths relative to a folder in it."""
    return [os.path.relpath(name, inside or ".").replace(os.sep, "/") for name in names]


def _wanted(layout: Layout, inside: str, names: list[str], precision: str) -> list[str]:
    """The files of a layout to download for this precision.

    For `auto`, these are all precisions that are not made for GPUs. The faster one is chosen after the download.
    """
    if precision == "auto":
        chosen = [name for name in layout.graphs if PRECISIONS[name].made_for != "gpu"]
    else:
        chosen = [name for name in layout.graphs if name in {of_tower(precision, tower) for tower in TOWERS}]
    chosen = chosen or list(layout.graphs)
    graphs = {graph for precision in chosen for graph in layout.graphs[precision].values()}
    own = {os.path.normpath(os.path.join(inside, file)).replace(os.sep, "/") for file in (*graphs, *layout.settings)}
    own |= {os.path.normpath(os.path.join(inside, "manifest.json")).replace(os.sep, "/"), "README.md"}
    data = tuple(f"{graph}{ending}" for graph in own if graph.endswith(".onnx") for ending in EXTERNAL_DATA)
    return [name for name in names if name in own or name.startswith(data)]


def _cached(name: str, inside: str, revision: str | None, precision: str = "auto") -> Path | None:
    """An earlier download, if it is a bundle with this precision.

    huggingface_hub itself finds a cached repository only if every file is there.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    repository = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    try:
        is_commit = revision is not None and COMMIT.fullmatch(revision)
        commit = revision if is_commit else (repository / "refs" / (revision or "main")).read_text(encoding="utf-8")
    except OSError:
        return None
    folder = repository / "snapshots" / str(commit) / inside
    layout = find_layout(list_names(folder)) if folder.is_dir() else None
    if layout is None or not all((folder / file).exists() for file in (layout.preprocessor, layout.tokenizer)):
        return None
    return folder if precision == "auto" or is_among(precision, layout.graphs) else None


def _remember(snapshot: Path, revision: str | None) -> None:
    """Record which commit a branch pointed to, as the client does, so that the branch can be resolved offline."""
    if revision is None or not COMMIT.fullmatch(revision):
        reference = snapshot.parents[1] / "refs" / (revision or "main")
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(snapshot.name, encoding="utf-8")


def _check(file: Path, name: str) -> None:
    """Compare a large file with its SHA-256, once. A file that does not match is removed from the cache."""
    blob = file.resolve()
    checked = blob.with_name(f"{blob.name}.miniclip")
    if not LARGE_FILE.fullmatch(blob.name) or checked.exists():
        return
    if sha256_of(blob) != blob.name:
        file.unlink()
        blob.unlink()
        raise MiniClipError(f"{file.name} of {name} arrived damaged; run the command again")
    checked.touch()


def _is_refusal(error: Exception) -> bool:
    """Whether the hub answered that the model does not exist, or that the user may not open it."""
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404)


def _no_bundle(name: str, error: Any) -> MiniClipError:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError

    reason = first_line(error)
    if isinstance(error, GatedRepoError):
        reason = "its owner must grant access first: ask for it on its page, then run: hf auth login"
    elif _is_refusal(error):
        reason = "no such model or revision, or no access to it: check the name, or log in with: hf auth login"
    elif constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set, and it is not in the cache"
    return MiniClipError(f"no folder {name}, and no bundle of that name from the Hugging Face hub ({reason})")
