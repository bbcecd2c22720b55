"""Write README.md of this folder: `python recipes/index.py`.

What it lists is in the notebooks (their title, and `patchclamp.about` in their metadata) and in
`results/`, which they write when they run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
HEAD = """\
# Recipes

<!-- Written by `python recipes/index.py` from the notebooks and their results. -->

Notebooks to run, change and learn from. `make lab` opens the first.
"""


def readme(folder: Path = FOLDER) -> str:
    """The text of README.md."""
    notebooks = sorted(folder.glob("*.ipynb"))
    lines = ["| | |", "| --- | --- |"]
    lines += [f"| [{path.name}]({path.name}) | {about(path)} |" for path in notebooks]
    parts = [HEAD, "\n".join(lines) + "\n"]
    results = [path for path in notebooks if result_of(path).is_file()]
    if results:
        parts.append("## What they measured\n")
        parts.append(
            "A claim holds if its value reaches the threshold and its control, random counterparts "
            "or whatever else\nmust not do the same, stays below its own. Each recipe says when "
            "the thresholds were set.\n"
        )
    parts += [f"### {title(path)}\n\n{measured(result_of(path))}" for path in results]
    return "\n".join(parts)


def measured(path: Path) -> str:
    """The table of one recipe's claims."""
    lines = ["| claim | value | threshold | control | met |", "| --- | --- | --- | --- | --- |"]
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        value = f"{row['value']:.2f} {row['unit']}"
        control = f"{row['control']:.2f}, had to be below {row['control_below']:.2f}"
        met = "yes" if row["met"] else "**no**"
        lines.append(
            f"| {row['claim']} | {value} | at least {row['at_least']:.2f} | {control} | {met} |"
        )
    return "\n".join(lines) + "\n"


def result_of(path: Path) -> Path:
    """Where a notebook writes what it measured."""
    return path.parent / "results" / f"{path.stem}.json"


def about(path: Path) -> str:
    """What a notebook is about, in one line."""
    return str(notebook(path)["metadata"]["patchclamp"]["about"])


def title(path: Path) -> str:
    """A notebook's title: its first line."""
    return str("".join(notebook(path)["cells"][0]["source"])).splitlines()[0].removeprefix("# ")


def notebook(path: Path) -> dict[str, Any]:
    """A notebook as it is stored."""
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(readme(), encoding="utf-8")
