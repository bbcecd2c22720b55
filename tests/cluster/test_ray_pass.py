"""A corpus read on Ray gives what it gives here, whoever reads it and whoever dies.

`make cluster`; not part of `make test`, because Ray does not start dependably on a busy machine.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from patchclamp.atlas.atlas import Atlas
from patchclamp.atlas.build import Progress, Ray, Reading
from patchclamp.errors import AtlasError
from tests.cluster.head import cluster
from tests.unit.words import TEXTS, reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from patchclamp.models.language_model import LanguageModel

READING = Reading(name="words", context=10, shard_tokens=30)
LABELS = ["even" if text % 2 == 0 else "odd" for text in range(len(TEXTS))]


@pytest.fixture(scope="module")
def running() -> Iterator[None]:
    with cluster(cpus=2, gpus=1):
        yield


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    folder = tmp_path_factory.mktemp("here") / "atlas"
    return Atlas.build(reader(), TEXTS, folder, labels=LABELS, reading=READING, decode=[])


def same(one: Atlas, other: Atlas) -> None:
    for table in ("neurons", "labels"):
        a, b = (each.query(f"SELECT * FROM {table} ORDER BY ALL") for each in (one, other))  # noqa: S608 (our own names)
        assert a.columns.tolist() == b.columns.tolist()
        for name in a.columns:
            left, right = a[name].to_numpy(), b[name].to_numpy()
            if left.dtype.kind == "f":
                np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-6, err_msg=name)
            else:
                assert (left == right).all(), name
    query = "SELECT layer, index, rank, place FROM examples WHERE \"group\" = 'top' ORDER BY ALL"
    assert one.query(query).equals(other.query(query))


def gpu_reader() -> LanguageModel:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    return reader()


@pytest.mark.parametrize("engine", [Ray(1, gpu_reader, gpus=1), Ray(2, reader)])
def test_any_number_of_workers_gives_the_same(
    running: None, here: Atlas, tmp_path: Path, engine: Ray
) -> None:
    there = Atlas.build(
        reader(),
        TEXTS,
        tmp_path / "ray",
        labels=LABELS,
        reading=READING,
        decode=[],
        engine=engine,
    )
    same(here, there)


def test_a_killed_worker_loses_nothing(running: None, here: Atlas, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if killed or progress.done >= progress.total:
            return
        for process in psutil.process_iter(["pid", "cmdline"]):
            if any("ray::MapWorker" in part for part in process.info["cmdline"] or []):
                os.kill(process.info["pid"], signal.SIGKILL)
                killed.append(process.info["pid"])

    there = Atlas.build(
        reader(),
        TEXTS,
        tmp_path / "ray",
        labels=LABELS,
        reading=READING,
        decode=[],
        engine=Ray(1, reader),
        tell=kill,
    )
    assert killed
    same(here, there)


def test_a_model_that_is_another_is_refused_by_the_worker(running: None, tmp_path: Path) -> None:
    def other() -> Any:
        return reader("gpt2")

    with pytest.raises(AtlasError, match=r"Ray gave up.*other weights"):
        Atlas.build(
            reader(), TEXTS, tmp_path / "ray", reading=READING, decode=[], engine=Ray(1, other)
        )
