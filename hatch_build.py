"""Builds the front end's bundles before hatchling packs a wheel, an sdist or an editable install.

Node is needed only where the front end's sources are newer than the bundles. An sdist carries
bundles that were built for it, so installing one needs no Node; PATCHCLAMP_SKIP_JS=1 switches
the hook off.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

STATIC = Path("widgets/patchclamp/static")
INSTALLED = Path("node_modules/.package-lock.json")  # npm writes it last
LOCK = Path("package-lock.json")


class BundleHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's own configuration class
    """Runs `npm ci` and `npm run build` where they have something to do."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Leave up-to-date bundles in `widgets/patchclamp/static`, or say what is missing."""
        root = Path(self.root)
        if os.environ.get("PATCHCLAMP_SKIP_JS") == "1" or bundles_are_current(root):
            return
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit(
                "patchclamp's front end has to be built, and npm is not on the PATH. "
                "Install Node.js 20 or newer and try again; or install a released wheel "
                "(`pip install patchclamp`), which needs no Node; or set PATCHCLAMP_SKIP_JS=1 "
                "to go on without views."
            )
        if not newer(root / INSTALLED, [root / LOCK]):
            npm_run(root, [npm, "ci"])
        npm_run(root, [npm, "run", "build"])
        if not any((root / STATIC).glob("*.js")):
            raise SystemExit(f"`npm run build` ended well but left no bundle in {STATIC}.")


def bundles_are_current(root: Path) -> bool:
    """Whether every bundle is newer than everything it is made from."""
    bundles = list((root / STATIC).glob("*.js"))
    if not bundles:
        return False
    if (root / "PKG-INFO").is_file():  # an unpacked sdist: its bundles were built with it
        return True
    oldest = min(bundles, key=modified)
    return newer(oldest, front_end_sources(root))


def front_end_sources(root: Path) -> Iterator[Path]:
    """What `npm run build` reads; folders too, because they change when a file is taken away."""
    yield from (root / name for name in ("package.json", "package-lock.json", "tsconfig.json"))
    yield root / "js"
    yield from (path for path in (root / "js").rglob("*") if "test" not in path.parts)


def newer(product: Path, sources: Iterator[Path] | list[Path]) -> bool:
    """Whether `product` exists and no source was modified after it."""
    return product.exists() and all(
        modified(source) <= modified(product) for source in sources if source.exists()
    )


def modified(path: Path) -> int:
    """When the file was last written, in nanoseconds."""
    return path.stat().st_mtime_ns


def npm_run(root: Path, command: list[str]) -> None:
    """Run one npm command in the repository; its own output says what went wrong."""
    ended = subprocess.run(command, cwd=root, check=False)  # noqa: S603
    if ended.returncode != 0:
        shown = " ".join(["npm", *command[1:]])
        raise SystemExit(f"`{shown}` failed in {root} (exit {ended.returncode}): see above.")
