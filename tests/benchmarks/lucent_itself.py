"""Lucent for a benchmark: fetched into a folder of its own, and run there by a process of its own.

It is a dependency of nothing here. torchvision, which it needs, is built for one release of torch
and wants CUDA's libraries, so that it breaks the environment that it is installed in: both come
without their dependencies into a folder that only the child process has on its path, beside the
torch that is there. Lucent uses nothing of torchvision but ``Normalize``; torchvision's compiled
operators, which do not load without CUDA, are declared by name alone so that it can be imported.

The child reads how many steps to take from its standard input, a line each, and answers with the
seconds that they took.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

# torch-lucent wants this kornia at most, and it wants `future` for the Python of its time.
_PACKAGES = ("torch-lucent==0.1.8", "kornia==0.4.1", "decorator==5.3.1", "future==1.0.0")
_TORCHVISION = {"2.13": "0.28.0"}  # the release that goes with a torch


class LucentFailedError(Exception):
    """Lucent could not be fetched or run; what failed is its text."""


class Lucent:
    """Lucent in a process of its own; a context, which ends it.

    Args:
        folder: a new folder for its packages.
        path: the module whose channel is climbed.
        channel: which channel.
        size: height and width of the picture.

    Raises:
        LucentFailedError: when it cannot be fetched or started, saying what failed.
    """

    def __init__(self, folder: Path, path: str, channel: int, size: int) -> None:
        _fetch(folder)
        root = str(Path(__file__).resolve().parents[2])
        places = [str(folder), root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._errors = (folder / "errors.txt").open("w+", encoding="utf-8")
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.lucent_itself", path, str(channel), str(size)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def climb(self, steps: int, enlarged: int) -> float:
        """Take steps from a new start, and return the seconds that they took.

        Args:
            steps: how many.
            enlarged: to how many pixels the transformed picture is resized for the network.

        Raises:
            LucentFailedError: when it fails.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps([steps, enlarged]) + "\n")
            self._child.stdin.flush()
            return float(self._child.stdout.readline())
        except (OSError, ValueError) as error:
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            raise LucentFailedError(said[-1] if said else str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.kill()
        self._child.communicate()
        self._errors.close()


def _fetch(folder: Path) -> None:
    from torch import __version__ as torch_version

    release = ".".join(torch_version.split(".")[:2])
    if release not in _TORCHVISION:
        msg = f"which torchvision goes with torch {release} is not known here"
        raise LucentFailedError(msg)
    wanted = (*_PACKAGES, f"torchvision=={_TORCHVISION[release]}")
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-qq"]
    done = subprocess.run(
        [*pip, "--no-deps", "--target", str(folder), *wanted],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise LucentFailedError("pip could not install it: " + (last[0] if last else "no reason"))


def _climb_for_ever(path: str, channel: int, size: int) -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from lucent.optvis import objectives, param, render  # type: ignore[import-not-found]

    from patchclamp import load

    model = load("efficientnet-lite0")
    wanted = objectives.channel(path.replace(".", "_"), channel)
    net = copy.deepcopy(model.module)
    for line in sys.stdin:
        steps, enlarged = json.loads(line)
        began = time.perf_counter()
        render.render_vis(
            net,
            wanted,
            lambda: param.image(size),
            thresholds=(steps,),
            progress=False,
            show_image=False,
            fixed_image_size=enlarged,
        )
        print(time.perf_counter() - began, flush=True)
        net = copy.deepcopy(model.module)  # it leaves its hooks on the network


if __name__ == "__main__":
    _climb_for_ever(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
