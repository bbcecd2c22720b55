"""A Ray cluster of this machine alone, for tests and benchmarks."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import ray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STARTS = 4
_PORTS = (
    "port",
    "dashboard-agent-grpc-port",
    "dashboard-agent-listen-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)
_SETTINGS = {
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_worker_niceness": "0",  # Ray would give way to everything else on the machine
}
# What jsonschema imports where it is there, for a format that Ray does not use: it builds a parser
# meanwhile, which is two thirds of the time that a process of Ray takes to start.
_SLOW = "rfc3987_syntax"


@contextmanager
def cluster(cpus: int = 2, gpus: int = 0, memory: int = 200 * 2**20) -> Iterator[None]:
    """Start a cluster, whose workers import what this process can, and connect to it.

    Ray gives its agents 15 seconds to start and its node 30, which nothing sets. So the ports are
    said beforehand, what its processes need not import is hidden from them, and where a machine is
    too busy all the same, it is started again.

    Args:
        cpus: how many workers have room.
        gpus: how many it is told that there are.
        memory: bytes of its object store.

    Raises:
        RuntimeError: with what Ray printed, when it never starts.
    """
    with TemporaryDirectory() as hidden:
        (Path(hidden) / f"{_SLOW}.py").write_text(f"raise ImportError('{_SLOW}')\n")
        yield from _started(cpus, gpus, memory, [hidden, *sys.path])


def _started(cpus: int, gpus: int, memory: int, path: Sequence[str]) -> Iterator[None]:
    for left in reversed(range(STARTS)):
        ports = free_ports(len(_PORTS))
        head = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *(f"--{name}={port}" for name, port in zip(_PORTS, ports, strict=True)),
                *(f"--num-cpus={cpus}", f"--num-gpus={gpus}", f"--object-store-memory={memory}"),
                *("--include-dashboard=false", "--disable-usage-stats"),
            ],
            env={
                **os.environ,
                **_SETTINGS,
                "RAY_AUTH_MODE": "disabled",
                "PYTHONPATH": os.pathsep.join(path),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            printed = until_started(head)
            if not printed:
                address = f"127.0.0.1:{ports[0]}"
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
                yield
                ray.shutdown()
                return
            if not left:
                raise RuntimeError(f"Ray did not start: {printed}")
        finally:
            head.terminate()
            head.wait(60)


def until_started(head: subprocess.Popen[str]) -> str:
    """Wait for a head; return what it printed if it ended instead, and nothing otherwise."""
    assert head.stdout is not None
    printed = []
    for line in head.stdout:
        printed.append(line)
        if "Ray runtime started" in line:
            return ""
    return "".join(printed)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with ExitStack() as during:
        each = [during.enter_context(socket.socket()) for _ in range(count)]
        for one in each:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in each]
