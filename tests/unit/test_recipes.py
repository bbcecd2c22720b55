"""The recipes: their list is current, they are as they should be, and the guides' numbers are so.

The tour runs in `tests/lab/test_tour.py`.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
NOTEBOOKS = sorted(RECIPES.glob("*.ipynb"))
GUIDES = [path for path in NOTEBOOKS if path.stem != "00-tour"]
VIEW = re.compile(
    r"pc\.(NeuronClamp|AttentionInspector|CircuitAblator|ActivationMaximizer|NeuronAtlas)\("
)


@pytest.fixture(scope="module")
def index() -> Any:
    """The program that writes README.md."""
    spec = importlib.util.spec_from_file_location("recipes_index", RECIPES / "index.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_of(path: Path) -> list[str]:
    stored = nbformat.read(path, as_version=4)
    return [cell.source for cell in stored.cells if cell.cell_type == "code"]


def test_the_list_of_recipes_is_current(index: Any) -> None:
    written = (RECIPES / "README.md").read_text(encoding="utf-8")
    assert written == index.readme(), "run python recipes/index.py"


def test_a_claim_that_is_not_held_is_listed_as_such(index: Any, tmp_path: Path) -> None:
    shutil.copy(GUIDES[0], tmp_path)
    (tmp_path / "results").mkdir()
    row = {"claim": "all is well", "value": 0.1, "at_least": 0.5, "control": 0.0}
    row |= {"control_below": 0.2, "unit": "nats", "met": False}
    result = tmp_path / "results" / f"{GUIDES[0].stem}.json"
    result.write_text(json.dumps({"rows": [row]}), encoding="utf-8")
    said = "| all is well | 0.10 nats | at least 0.50 | 0.00, had to be below 0.20 | **no** |"
    assert said in index.readme(tmp_path).splitlines()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.stem))
def test_a_recipe_is_stored_without_outputs_and_shows_something_live_at_once(path: Path) -> None:
    stored = nbformat.read(path, as_version=4)
    nbformat.validate(stored)
    cells = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    assert any(VIEW.search(code) for code in code_of(path)[:3])
    assert stored.cells[0].source.startswith("# ")
    assert re.match(r"## Exercises\n\n1\. .*\n2\. ", stored.cells[-1].source, re.DOTALL)


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: str(path.stem))
def test_a_guide_has_results_with_controls(path: Path) -> None:
    rows = json.loads((RECIPES / "results" / f"{path.stem}.json").read_text("utf-8"))["rows"]
    assert rows
    for row in rows:
        held = row["value"] >= row["at_least"] and row["control"] < row["control_below"]
        assert row["met"] is held, row["claim"]


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("path", GUIDES, ids=lambda path: str(path.stem))
def test_a_guide_runs_from_top_to_bottom_and_its_numbers_are_the_listed_ones(
    path: Path, tmp_path: Path
) -> None:
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    shown = [
        [output.data for output in cell.outputs if output.output_type == "execute_result"]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    live = "application/vnd.jupyter.widget-view+json"
    assert any(live in data for cell in shown[:3] for data in cell)
    result = Path("results") / f"{path.stem}.json"
    new, listed = (
        json.loads((folder / result).read_text(encoding="utf-8")) for folder in (tmp_path, RECIPES)
    )
    assert without_numbers(new) == without_numbers(listed)
    for one, other in zip(new["rows"], listed["rows"], strict=True):
        for name in ("value", "at_least", "control", "control_below"):
            # Another machine adds in another order; what is listed is rounded to 0.001.
            assert one[name] == pytest.approx(other[name], abs=2e-3), (one["claim"], name)


def without_numbers(data: dict[str, Any]) -> dict[str, Any]:
    words = ("claim", "unit", "met")
    return data | {"rows": [{word: row[word] for word in words} for row in data["rows"]]}
