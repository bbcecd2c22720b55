"""The house rules of DESIGN: which floor may import which, who may hook, what is never done."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import patchclamp

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "widgets" / "patchclamp"
FRONT_END = ROOT / "js"

# The lowest floor has the lowest number; imports stay on a floor or go down.
FLOORS = {
    "corpora": 0,
    "errors": 0,
    "sites": 1,
    "interventions": 2,
    "models": 3,
    "engine": 4,
    "methods": 5,
    "history": 5,
    "session": 6,
    "module_session": 6,
    "atlas": 6,
    "code": 6,
    "views": 7,
    "cli": 8,
    "__main__": 8,
}

INSTALLS_A_HOOK = {
    "register_forward_hook",
    "register_forward_pre_hook",
    "register_full_backward_hook",
    "register_full_backward_pre_hook",
    "add_hook",
    "add_perma_hook",
    "run_with_hooks",
    "hooks",
    "fwd_hooks",
}


def sources(folder: Path = PACKAGE) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(module: ast.Module, path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Every absolute name that the file imports, at its top, in a function or for type checkers."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            if name == "patchclamp":  # `from patchclamp import session`: each name is a module
                for alias in node.names:
                    if alias.name != "__version__":
                        yield f"patchclamp.{alias.name}", node
            else:
                yield name, node


def floor(module: str) -> str | None:
    """The floor of the house a module stands on; None for other people's modules."""
    parts = module.split(".")
    return parts[1] if parts[0] == "patchclamp" and len(parts) > 1 else None


def climbs(path: Path, module: ast.Module) -> list[str]:
    here = floor(module_name(path))
    if here is None:  # the package itself is the door to every floor
        return []
    return [
        f"{place(path, node)}: {here} imports {there}"
        for name, node in imports(module, path)
        if (there := floor(name)) is not None and FLOORS.get(there, 99) > FLOORS[here]
    ]


def called(module: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr, node
            elif isinstance(node.func, ast.Name):
                yield node.func.id, node


def found(rule: Callable[[Path, ast.Module], list[str]]) -> list[str]:
    return [line for path in sources() for line in rule(path, tree(path))]


def test_every_module_stands_on_a_known_floor() -> None:
    floors = {floor(module_name(path)) for path in sources()} - {None}
    assert floors <= FLOORS.keys()


def test_imports_point_downwards_only() -> None:
    assert not found(climbs)


def test_an_upward_import_inside_a_function_is_found() -> None:
    path = PACKAGE / "methods" / "ranking.py"
    for line in ("from patchclamp.session import Session", "from ..views import view"):
        assert climbs(path, ast.parse(f"def f():\n    {line}\n"))
    for line in ("from patchclamp.engine.runs import Run", "from .effect import Effect"):
        assert not climbs(path, ast.parse(f"def f():\n    {line}\n"))


def test_only_the_engine_installs_hooks() -> None:
    def hooks(path: Path, module: ast.Module) -> list[str]:
        if path.is_relative_to(PACKAGE / "engine"):
            return []
        return [place(path, node) for name, node in called(module) if name in INSTALLS_A_HOOK]

    assert not found(hooks)


def test_only_views_know_widgets() -> None:
    def widgets(path: Path, module: ast.Module) -> list[str]:
        if path.is_relative_to(PACKAGE / "views"):
            return []
        return [
            f"{place(path, node)}: {name}"
            for name, node in imports(module, path)
            if name.split(".")[0] in {"anywidget", "ipywidgets", "IPython", "traitlets"}
        ]

    assert not found(widgets)


def test_the_users_weights_are_never_converted() -> None:
    # enable_compatibility_mode folds weights in place and cannot be undone.
    assert not found(
        lambda path, module: [
            place(path, node)
            for node in ast.walk(module)
            if isinstance(node, ast.Attribute) and node.attr == "enable_compatibility_mode"
        ]
    )


def test_nothing_is_unpickled() -> None:
    def unpickles(path: Path, module: ast.Module) -> list[str]:
        lines = [
            f"{place(path, node)}: {name}"
            for name, node in imports(module, path)
            if name.split(".")[0] in {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
        ]
        for name, node in called(module):
            safe = any(
                word.arg == "weights_only"
                and isinstance(word.value, ast.Constant)
                and word.value.value is True
                for word in node.keywords
            )
            torch_load = name == "load" and ast.unparse(node.func) == "torch.load"
            if torch_load and not safe:
                lines.append(f"{place(path, node)}: torch.load without weights_only=True")
            if any(
                word.arg == "allow_pickle"
                and not (isinstance(word.value, ast.Constant) and word.value.value is False)
                for word in node.keywords
            ):
                lines.append(f"{place(path, node)}: allow_pickle")
        return lines

    assert not found(unpickles)


def test_no_error_is_swallowed() -> None:
    def swallows(path: Path, module: ast.Module) -> list[str]:
        lines = []
        for node in ast.walk(module):
            if not isinstance(node, ast.ExceptHandler):
                continue
            if node.type is None:
                lines.append(f"{place(path, node)}: a bare except")
            elif ast.unparse(node.type) in {"Exception", "BaseException"} and all(
                isinstance(step, (ast.Pass, ast.Continue)) for step in node.body
            ):
                lines.append(f"{place(path, node)}: {ast.unparse(node.type)} swallowed")
        return lines

    assert not found(swallows)


def test_every_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {
        re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")
        for requirement in (*project["dependencies"], *project["optional-dependencies"]["ray"])
    } | {"pydantic-core"}  # the part of pydantic that its documentation imports errors from
    owners = packages_distributions()
    undeclared = set()
    for path in sources():
        for name, _ in imports(tree(path), path):
            top = name.split(".")[0]
            if top == "patchclamp" or top in sys.stdlib_module_names:
                continue
            dists = {dist.lower().replace("_", "-") for dist in owners.get(top, [top])}
            if not dists & declared:
                undeclared.add(f"{path.relative_to(ROOT)}: {top}")
    assert not undeclared


@pytest.mark.skipif(not FRONT_END.is_dir(), reason="no front-end sources here")
def test_token_text_never_becomes_html() -> None:
    makes_html = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser"
    )
    assert not [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((FRONT_END / "src").rglob("*.ts"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if makes_html.search(line)
    ]


HEAVY = ["torch", "transformer_lens", "transformers", "pandas", "altair", "anywidget", "numpy"]


@pytest.mark.parametrize(
    "statement",
    [
        "import patchclamp",
        "import patchclamp; dir(patchclamp); patchclamp.PatchclampError",
        "import patchclamp; patchclamp.Site, patchclamp.SiteSet, patchclamp.Clamp",
    ],
)
def test_importing_the_words_loads_nothing_heavy(statement: str) -> None:
    program = f"{statement}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[]"


def test_the_package_lists_what_it_has() -> None:
    assert set(patchclamp.__all__) == set(patchclamp._HOME) | {"__version__"}
    assert dir(patchclamp) == sorted(patchclamp.__all__)


@pytest.mark.parametrize("name", [name for name in patchclamp.__all__ if name[0] != "_"])
def test_every_name_that_the_package_lists_is_there(name: str) -> None:
    assert getattr(patchclamp, name) is not None


def test_a_wrong_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"no 'NeuronClmp'.*NeuronClamp"):
        patchclamp.NeuronClmp  # noqa: B018


def test_the_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == patchclamp.__version__


def test_npm_ci_can_install_on_every_platform() -> None:
    # npm leaves out of the lock what the registry did not have, and `npm ci` then refuses it.
    lock = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    locked = {path.split("node_modules/")[-1] for path in lock}
    wanted = {
        f"{path} needs {name}"
        for path, package in lock.items()
        for name in [*package.get("dependencies", ()), *package.get("optionalDependencies", ())]
        if name not in locked
    }
    assert not wanted
    assert not [path for path, package in lock.items() if "resolved" in package]


def tracked() -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_top_level_stays_small() -> None:
    house = {"widgets", "js", "recipes", "tests", "docs", ".ci", ".github"}
    folders = {name.split("/")[0] for name in tracked() if "/" in name}
    files = {name for name in tracked() if "/" not in name}
    assert folders <= house
    assert not {name for name in files if name.endswith((".py", ".sh", ".ipynb"))} - {
        "hatch_build.py"
    }
    assert len(files) <= 20


def test_bundles_are_not_committed() -> None:
    assert not [name for name in tracked() if name.startswith("widgets/patchclamp/static/")]


def test_nothing_names_the_machine_it_was_written_on() -> None:
    # Spelled apart, so that this file does not hold what it looks for.
    somewhere = re.compile(
        "|".join(["/" + "work/", "/" + "tmp/w/", "/" + "root/", "/" + r"home/\w", "/" + "Users/"])
    )
    named = []
    for name in tracked():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture or a weight file
            continue
        named += [
            f"{name}:{number}"
            for number, line in enumerate(text.splitlines(), 1)
            if somewhere.search(line)
        ]
    assert not named
