"""What a kernel holds at most while it gives every attention row of SmolLM2 at 2,048 tokens.

A process of its own runs the model once and then asks for the rows of all heads of all layers, as
AttentionInspector does for its scores. How much its memory grows at most, over what it holds with
the model loaded and used once, stands beside what all patterns take that are kept at once, in
float32: the plain way (TransformerLens' ``run_with_cache`` of everything takes more). A run of that
many tokens counts on both sides in practice, here only on ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.measure import Figure

LENGTH = 2048
SMALLEST = 4.0
ROOT = Path(__file__).resolve().parents[2]


def figures(rounds: int = 1) -> Iterator[Figure | str]:
    """Measure in processes of their own; the largest of ``rounds`` counts."""
    from tests.benchmarks.measure import Figure

    command = [sys.executable, "-m", "tests.benchmarks.attention_memory"]
    found: list[dict[str, Any]] = []
    for _ in range(rounds):
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    worst = max(found, key=lambda each: float(each["grown"]))
    yield (
        f"# T={LENGTH}: {worst['grown'] / 1e9:.2f} GB over the {worst['before'] / 1e9:.2f} GB of a "
        f"process with the model; after the run alone {worst['run'] / 1e9:.2f} GB over it; "
        f"all patterns {worst['patterns'] / 1e9:.2f} GB; {worst['seconds']:.0f} s"
    )
    name = f"attention-memory:T={LENGTH}:all-patterns/peak-growth"
    yield Figure(name, worst["patterns"] / worst["grown"], SMALLEST, at_least=True)


class _Peak:
    """The most memory that this process held, looked at 200 times a second."""

    def __init__(self) -> None:
        import psutil

        self.process = psutil.Process()
        self.most = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def held(self) -> int:
        return int(self.process.memory_info().rss)

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.most = max(self.most, self.held())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def main() -> None:
    """Measure once and print it as JSON."""
    import torch

    from patchclamp import Session, load
    from patchclamp.engine.attention import Attention
    from patchclamp.models import catalogue

    model = load(catalogue.SMOLLM2.name)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, model.anatomy.d_vocab, (LENGTH,), generator=generator)

    def rows(session: Session) -> float:
        """Go over all rows; how far the sum of the worst is from 1."""
        attention = Attention(session.experiment)
        off = 0.0
        for layer in range(attention.n_layers):
            seen = 0
            for start, block in attention.chunks(layer):
                assert start == seen
                seen += block.shape[1]
                off = max(off, float((block.sum(-1) - 1).abs().max()))
            assert seen == attention.length
        return off

    short = Session(model, ids[:16])
    short.baseline.rows([-1])
    short.submit(lambda _: rows(short)).result()
    session = Session(model, ids)
    with _Peak() as peak:
        before = peak.held()
        began = time.monotonic()
        session.baseline.rows([-1])
        run = peak.most - before
        off = session.submit(lambda _: rows(session)).result()
        seconds = time.monotonic() - began
    if not off <= 1e-4:
        raise ValueError(f"A row sums to {1 + off}, or is not a number.")
    anatomy = model.anatomy
    found = {
        "before": before,
        "run": run,
        "grown": peak.most - before,
        "patterns": 4 * anatomy.n_layers * anatomy.n_heads * LENGTH**2,
        "seconds": seconds,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
