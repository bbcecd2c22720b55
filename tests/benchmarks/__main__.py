"""The benchmarks: one line a figure, ``name ratio target ok|short``; what it is made of after a #.

    python -m tests.benchmarks            all of them
    python -m tests.benchmarks engine     those of one module

A figure that is short of its target is no failure: machines differ. A crash is.
"""

from __future__ import annotations

import argparse
import signal
import sys
from importlib import import_module

GROUPS = (
    "engine",
    "circuits",
    "prompts",
    "maximization",
    "gesture",
    "attention",
    "attention-memory",
    "atlas",
)


def main() -> None:
    """Measure what was asked for and print each figure as soon as it is there."""
    arguments = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    arguments.add_argument("group", nargs="*", help=f"any of {', '.join(GROUPS)}; all by default")
    arguments.add_argument("--rounds", type=int, help="how often each side is timed")
    asked = arguments.parse_args()
    unknown = set(asked.group) - set(GROUPS)
    if unknown:
        arguments.error(f"there is no group {min(unknown)!r}; there is {' and '.join(GROUPS)}.")
    # `timeout` and CI end a run with SIGTERM: servers, browsers and folders are to go then too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    options = {} if asked.rounds is None else {"rounds": asked.rounds}
    for group in asked.group or GROUPS:
        for figure in import_module(f"tests.benchmarks.{group.replace('-', '_')}").figures(
            **options
        ):
            print(figure, flush=True)


if __name__ == "__main__":
    main()
