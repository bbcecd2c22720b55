"""One server and one browser for all tests; one kernel for those that do not kill it."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.lab import lab
from tests.lab.lab import Notebook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from playwright.sync_api import Browser

EMPTY = {
    "cells": [],
    "metadata": {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
    },
    "nbformat": 4,
    "nbformat_minor": 5,
}
SETUP = """
import asyncio, gc, threading, time
import torch
torch.manual_seed(0)
import patchclamp as pc
from ipywidgets import Widget
from tests.lab.tiny_model import SCRIPT, SENTENCE, encoder, eye, slow, squares, tiny
model = tiny()
"""


@pytest.fixture(scope="session", autouse=True)
def _ends_on_sigterm() -> Iterator[None]:
    """`timeout` and CI end a run with SIGTERM: fixtures are to be torn down then too."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that JupyterLab serves."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="session")
def lab_url(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A JupyterLab."""
    home = tmp_path_factory.mktemp("home")
    with lab.server(served, home) as url:
        yield url


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A browser."""
    with lab.browser() as running:
        yield running


@pytest.fixture(scope="session")
def open_notebook(chromium: Browser, lab_url: str, served: Path) -> Callable[[str], Notebook]:
    """Opens a notebook in a page of its own: one of the served folder, or a new empty one."""

    def opened(name: str) -> Notebook:
        file = served / name
        if not file.exists():
            file.write_text(json.dumps(EMPTY), encoding="utf-8")
        page = chromium.new_page(viewport={"width": 1200, "height": 1400})
        notebook = Notebook(page, lab_url)
        notebook.open(name)
        return notebook

    return opened


@pytest.fixture(scope="session")
def shared_notebook(open_notebook: Callable[[str], Notebook]) -> Iterator[Notebook]:
    """A notebook whose kernel has a tiny model as `model`."""
    notebook = open_notebook("shared.ipynb")
    notebook.python(SETUP)
    yield notebook
    notebook.page.close()


@pytest.fixture
def notebook(shared_notebook: Notebook) -> Iterator[Notebook]:
    """The shared notebook, without anything of the test before."""
    yield shared_notebook
    shared_notebook.cells()
    shared_notebook.python("Widget.close_all()")
    shared_notebook.page.set_viewport_size({"width": 1200, "height": 1400})
