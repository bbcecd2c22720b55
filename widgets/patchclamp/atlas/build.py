"""Building an atlas: one pass over a corpus, and decoding the weights; either may be left out.

A build that is stopped, killed or runs out of disk goes on from its last finished shard when it is
asked for again: after every shard, all that was collected is written beside the tables. A folder
that holds another model's or corpus's numbers is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from patchclamp.atlas import tables
from patchclamp.atlas.manifest import FILE, Manifest, Reading, manifest_of
from patchclamp.engine.surroundings import Reference, reference_inputs
from patchclamp.errors import AtlasError, InputError
from patchclamp.methods.corpus_pass import Collected, Reader, Windows, cut
from patchclamp.methods.decoded_weights import Decoded, Decoder, Matrix
from patchclamp.methods.label_statistics import label_statistics
from patchclamp.methods.massive import massive_neurons

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Generator, Iterable, Sequence

    from torch import Tensor

    from patchclamp.engine.engine import Engine
    from patchclamp.methods.corpus_pass import PerPrompt
    from patchclamp.models.language_model import LanguageModel

    ShouldStop = Callable[[], bool]
    Tell = Callable[["Progress"], None]

__all__ = ["Decoding", "Plan", "Progress", "Ray", "Reading", "build", "plan_of", "read_values"]

CHECKPOINT = "checkpoint.safetensors"
VALUES = "values.npy"


@dataclass(frozen=True)
class Ray:
    """How a corpus is read on Ray.

    Attributes:
        workers: how many processes, each with a model of its own.
        load: makes the model in a worker; None loads it by its name.
        gpus: how many GPUs each worker gets; it sees no others.
    """

    workers: int = 1
    load: Callable[[], LanguageModel] | None = None
    gpus: float = 0


@dataclass(frozen=True)
class Decoding:
    """Which weights are decoded.

    Attributes:
        matrices: of "down", "up" and "gate"; None is all there are.
        layers: of which layers' neurons; None is all. Others have no score, and no tokens.
    """

    matrices: Sequence[Matrix] | None = None
    layers: Collection[int] | None = None


@dataclass(frozen=True)
class Progress:
    """How far a build is.

    Attributes:
        what: in words.
        done: how many of its units.
        total: how many there are.
    """

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Plan:
    """What is to be built, and where.

    Attributes:
        folder: where the atlas goes.
        manifest: what it is of.
        windows: the corpus; None without one.
        labels: each text's; empty without.
        per_prompt: which value stands for a text, where there are labels.
        matrices: which matrices are decoded.
        layers: of which layers; None is all.
        ray: on Ray, how; None reads in this process.
    """

    folder: Path
    manifest: Manifest
    windows: Windows | None
    labels: tuple[str, ...]
    per_prompt: PerPrompt
    matrices: tuple[Matrix, ...]
    layers: tuple[int, ...] | None = None
    ray: Ray | None = None


def plan_of(
    model: LanguageModel,
    texts: Iterable[str] | None,
    folder: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    reading: Reading | None = None,
    decode: Sequence[Matrix] | Decoding | None = None,
    engine: Literal["local", "ray"] | Ray = "local",
) -> Plan:
    """Read a corpus's tokens and say what is to be built; runs no model.

    The arguments and the errors are those of :meth:`patchclamp.atlas.atlas.Atlas.build`.
    """
    reading = reading or Reading()
    decoding = decode if isinstance(decode, Decoding) else Decoding(decode)
    matrices = _matrices(model, decoding.matrices)
    some = decoding.layers if matrices else None
    layers = None if some is None else Decoder(model).check_layers(some)
    if texts is None and not matrices:
        msg = "An atlas needs a corpus, or a matrix to decode."
        raise InputError(msg)
    if engine not in ("local", "ray") and not isinstance(engine, Ray):
        msg = f'The engine is "local" or "ray", not {engine!r}.'
        raise InputError(msg)
    told = tuple(labels or ())
    windows = None
    if texts is not None:
        read = list(texts)
        if told and len(told) != len(read):
            msg = f"Each of the {len(read)} texts needs one label; there are {len(told)}."
            raise InputError(msg)
        windows = cut(
            model,
            read,
            context=reading.context,
            shard_tokens=reading.shard_tokens,
            whole_texts=bool(told),
        )
    elif told:
        msg = "Labels are of texts, and there are none."
        raise InputError(msg)
    return Plan(
        folder=Path(folder),
        manifest=manifest_of(model, windows, reading, told, layers or ()),
        windows=windows,
        labels=told,
        per_prompt=reading.per_prompt,
        matrices=matrices,
        layers=layers,
        ray=Ray() if engine == "ray" else None if engine == "local" else engine,
    )


def _matrices(model: LanguageModel, decode: Sequence[Matrix] | None) -> tuple[Matrix, ...]:
    if decode is not None and not decode:
        return ()
    there = Decoder(model).matrices
    for matrix in decode or ():
        if matrix not in there:
            msg = f"{model.name} has the matrices {', '.join(there)}, not {matrix!r}."
            raise InputError(msg)
    return tuple(decode or there)


def build(
    engine: Engine, plan: Plan, should_stop: ShouldStop, tell: Tell | None = None
) -> Generator[object, None, None]:
    """Build what is planned, on the model's worker; others get in at every yield.

    Raises:
        AtlasError: when the folder holds another atlas, or cannot be written.
        Stopped: when ``should_stop`` said so; what was finished is kept.
    """
    folder, say = plan.folder, tell or (lambda _progress: None)
    manifest, a = _claim(plan), engine.model.anatomy
    neurons = tables.of_neurons({n: a.n_neurons(n) for n in range(a.n_layers) if a.n_neurons(n)})
    neurons["massive"] = _massive(engine, neurons["address"].tolist(), should_stop)
    if plan.windows is not None:
        collected = yield from _collect(engine, plan, len(neurons), should_stop, say)
        for name, column in tables.statistics_of(collected).items():
            neurons[name] = column
        tables.save(folder, "tokens", tables.tokens_table(plan.windows, engine.model))
        tables.save(folder, "examples", tables.examples_table(collected, plan.manifest.seed))
        tables.save(folder, "sketches", tables.sketches_table(collected))
        tables.save_sample(folder, collected.sample)
        if plan.labels:
            values, read = _values(plan, len(neurons))
            found = label_statistics(values, [plan.labels[text] for text in read])
            tables.save(folder, "labels", tables.labels_table(found, neurons))
    if plan.matrices:
        decoded = yield from _decode(engine.model, plan, should_stop, say)
        for each in decoded:
            for name, part in tables.decoded_columns(each, engine.model).items():
                neurons[name] = part
        tables.save(folder, "decoded", tables.decoded_table(decoded, engine.model))
    manifest.with_decoded(*plan.matrices).write(folder)
    tables.save(folder, "neurons", neurons)  # last: it says that the atlas is finished
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _massive(engine: Engine, addresses: Sequence[str], should_stop: ShouldStop) -> list[bool]:
    """Say which neurons carry the model whatever it reads.

    They show at the beginning of a text, which a corpus pass does not count: the reference set is
    asked, as for every ranking.
    """
    inputs = reference_inputs(engine.model, None)
    if not inputs:
        return [False] * len(addresses)
    found = massive_neurons(Reference(engine, inputs), engine.model.anatomy, should_stop)
    known = {f"L{layer}.N{index}" for layer, index in found}
    return [address in known for address in addresses]


def _claim(plan: Plan) -> Manifest:
    """Make the folder this atlas's own, or say that it is another's."""
    folder = plan.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / FILE).is_file():
            plan.manifest.check_same(Manifest.read(folder), folder)
        else:
            plan.manifest.write(folder)
    except OSError as error:
        msg = f"No atlas can be written to {folder} ({error.strerror or error})."
        raise AtlasError(msg) from error
    return plan.manifest


def _collect(
    engine: Engine, plan: Plan, units: int, should_stop: ShouldStop, say: Tell
) -> Generator[None, None, Collected]:
    """Read the shards that are not read yet; keep what is found after each."""
    windows = plan.windows
    assert windows is not None  # noqa: S101 (asked for by whoever has a corpus)
    kept = _Checkpoint(plan, units)
    collected, done = kept.read(engine.model)
    left = [number for number in range(len(windows.shards)) if number not in done]
    found = (
        _here(engine, plan, left, collected, kept, should_stop, say)
        if plan.ray is None
        else _on_ray(engine, plan, left, collected, kept, should_stop, say)
    )
    yield from found
    return collected


def _here(
    engine: Engine,
    plan: Plan,
    left: Sequence[int],
    collected: Collected,
    kept: _Checkpoint,
    should_stop: ShouldStop,
    say: Tell,
) -> Generator[None, None, None]:
    windows = plan.windows
    assert windows is not None  # noqa: S101
    reader = Reader(engine, windows, plan.per_prompt if plan.labels else None)
    for number in left:
        shard = windows.shards[number]
        own = kept.rows(len(reader.texts_of(shard))) if plan.labels else None
        reached = collected.tokens
        for _ in reader.read(shard, collected, own, should_stop=should_stop):
            say(Progress("reading the corpus", collected.tokens, windows.tokens))
            yield
        assert collected.tokens > reached  # noqa: S101 (a shard has a token)
        kept.write(number, collected, own, reader.texts_of(shard))


def _on_ray(
    engine: Engine,
    plan: Plan,
    left: Sequence[int],
    collected: Collected,
    kept: _Checkpoint,
    should_stop: ShouldStop,
    say: Tell,
) -> Generator[None, None, None]:
    from patchclamp.atlas.ray_pass import read_on_ray

    windows = plan.windows
    assert windows is not None  # noqa: S101
    reader = Reader(engine, windows, plan.per_prompt if plan.labels else None)
    for number, part, own in read_on_ray(engine.model, plan, left, should_stop):
        collected.merge(part)
        kept.write(number, collected, own, reader.texts_of(windows.shards[number]))
        say(Progress("reading the corpus", collected.tokens, windows.tokens))
        yield


class _Checkpoint:
    """What was collected so far, on disk: after a kill, a pass goes on from here.

    Args:
        plan: what is built.
        units: how many neurons there are.
    """

    def __init__(self, plan: Plan, units: int) -> None:
        self._path = plan.folder / CHECKPOINT
        self._plan = plan
        self._units = units
        self._done: set[int] = set()

    def read(self, model: LanguageModel) -> tuple[Collected, frozenset[int]]:
        """Return what was collected, and which shards are in it."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        m = self._plan.manifest
        if not self._path.is_file():
            nothing = Collected.nothing(model, top=m.top, sample=m.sample, seed=m.seed)
            return nothing, frozenset()
        try:
            found = load_file(self._path)
            self._done = set(found.pop("shards").tolist())
            return Collected.of_tensors(found), frozenset(self._done)
        except (SafetensorError, KeyError, ValueError) as error:
            msg = f"{self._path} is damaged ({error}): remove it and build again from the start."
            raise AtlasError(msg) from error

    def write(self, number: int, collected: Collected, rows: Tensor | None, texts: range) -> None:
        """Keep what was collected, now with one more shard in it."""
        from safetensors.torch import save_file

        if rows is not None:
            values = self._values("r+")
            values[texts.start : texts.stop] = rows.numpy()
            values.flush()
        self._done.add(number)
        found = {**collected.to_tensors(), "shards": torch.tensor(sorted(self._done))}
        # A view into a larger tensor cannot be written as it is.
        whole = {name: tensor.contiguous() for name, tensor in found.items()}
        tables.written(self._path, lambda path: save_file(whole, path))

    def rows(self, texts: int) -> Tensor:
        """Make what takes the values of a shard's texts."""
        return torch.full((texts, self._units), torch.nan)

    def _values(self, mode: Literal["r+", "r"]) -> np.memmap:
        """Float32[text, unit] on disk, so that memory does not grow with the corpus."""
        path, windows = self._plan.folder / VALUES, self._plan.windows
        assert windows is not None  # noqa: S101
        if not path.is_file():
            shape = (windows.texts, self._units)
            made = np.lib.format.open_memmap(path, "w+", np.float32, shape)
            made[:] = np.nan
            made.flush()
        found: np.memmap = np.lib.format.open_memmap(path, mode)
        return found


def _values(plan: Plan, units: int) -> tuple[Tensor, list[int]]:
    """Return Float32[text, unit] of the texts that have tokens, and which they are."""
    values = torch.from_numpy(_Checkpoint(plan, units)._values("r+"))  # noqa: SLF001
    read = (~values[:, 0].isnan()).nonzero().flatten()
    return (values if len(read) == len(values) else values[read]), read.tolist()


def read_values(folder: Path) -> np.ndarray:
    """Read Float32[text, neuron], what stands for each text; it stays on the disk."""
    found: np.ndarray = np.load(folder / VALUES, mmap_mode="r")
    return found


def _decode(
    model: LanguageModel, plan: Plan, should_stop: ShouldStop, say: Tell
) -> Generator[None, None, list[Decoded]]:
    decoder, found = Decoder(model), []
    total = sum(model.anatomy.n_neurons(layer) for layer in decoder.check_layers(plan.layers))
    for matrix in plan.matrices:
        last = None
        for last in decoder.decode(
            matrix, seed=plan.manifest.seed, layers=plan.layers, should_stop=should_stop
        ):
            say(Progress(f"decoding {matrix}", last.done, total))
            yield
        assert last is not None  # noqa: S101 (a model with neurons has a layer of them)
        found.append(last)
    return found
