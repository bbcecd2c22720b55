"""An atlas's tables, and how they lie on disk: one Parquet file each.

neurons     one row a neuron: what it does on the corpus, how special its weights are
decoded     the tokens that stand out in each matrix of each neuron
examples    where each neuron's largest values were, and some of each quantile group
tokens      the corpus, a token a row, by its place
sketches    each neuron's histogram, the bins that are not empty
labels      how each neuron tells each label from the others

Beside them lie the values of all neurons at the sampled tokens and, with labels, those that stand
for each text.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import numpy as np
import torch

from patchclamp.errors import AtlasError
from patchclamp.methods.neuron_statistics import bin_middles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa
    from torch import Tensor

    from patchclamp.methods.corpus_pass import Collected, Windows
    from patchclamp.methods.decoded_weights import Decoded
    from patchclamp.methods.label_statistics import LabelStatistics
    from patchclamp.methods.neuron_statistics import NeuronStatistics, Sample
    from patchclamp.models.language_model import LanguageModel

TABLES = ("neurons", "decoded", "examples", "tokens", "sketches", "labels")

SAMPLED = "sample.safetensors"
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
FIRES = 0.1
"""A neuron fires where its size exceeds this share of its own peak."""
GROUPS = {"90-100%": (0.9, 1.0), "75-90%": (0.75, 0.9), "50-75%": (0.5, 0.75), "0-50%": (0.0, 0.5)}
"""The sampled tokens by rank, of which examples of each group are kept."""
PER_GROUP = 4
HALF = "\N{REPLACEMENT CHARACTER}"
LONGEST = 16
"""Tokens that are read together at most for the characters that they are parts of."""


def written(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file whole or not at all: beside it first, then in its place.

    Raises:
        AtlasError: when the disk is full or the folder cannot be written; what was there stays.
    """
    beside = path.with_name(path.name + ".part")
    try:
        write(beside)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        full = error.errno == errno.ENOSPC
        why = "the disk is full" if full else (error.strerror or str(error))
        msg = (
            f"{path} could not be written ({why}). What was finished before stays: make room and "
            "build again, it goes on from there."
        )
        raise AtlasError(msg) from error


def save(folder: Path, name: str, table: pd.DataFrame | pa.Table) -> None:
    """Write one table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = (
        table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
    )
    written(folder / f"{name}.parquet", lambda path: pq.write_table(made, path, compression="zstd"))


def save_sample(folder: Path, sample: Sample) -> None:
    """Write the values of all neurons at the sampled tokens, Float16[token, neuron]."""
    from safetensors.torch import save_file

    found = {"values": sample.values.contiguous(), "places": sample.places}
    written(folder / SAMPLED, lambda path: save_file(found, path))


def read_sample(folder: Path) -> Tensor:
    """Read Float16[token, neuron], the values of all neurons at the sampled tokens.

    Raises:
        AtlasError: when they are not there.
    """
    from safetensors.torch import load_file

    try:
        return load_file(folder / SAMPLED)["values"]
    except FileNotFoundError:
        msg = f"The atlas in {folder} has lost {SAMPLED}, the neurons' values at sampled tokens."
        raise AtlasError(msg) from None


def of_neurons(layers: dict[int, int]) -> pd.DataFrame:
    """Return address, layer and index of all neurons, given how many each layer has."""
    import pandas as pd

    layer = np.repeat(list(layers), list(layers.values())).astype(np.int32)
    index = np.concatenate([np.arange(count, dtype=np.int32) for count in layers.values()])
    address = [f"L{a}.N{b}" for a, b in zip(layer.tolist(), index.tolist(), strict=True)]
    return pd.DataFrame({"address": address, "layer": layer, "index": index})


def statistics_of(collected: Collected) -> dict[str, np.ndarray]:
    """Return the columns that the corpus gives, neurons layer after layer."""
    columns: dict[str, list[Tensor]] = {}
    for statistics in collected.layers.values():
        for name, values in _columns(statistics).items():
            columns.setdefault(name, []).append(values)
    return {name: torch.cat(parts).float().numpy() for name, parts in columns.items()}


def _columns(statistics: NeuronStatistics) -> dict[str, Tensor]:
    shares = torch.tensor(list(QUANTILES.values()))
    quantiles = statistics.sketch.quantiles(shares)
    return {
        "mean": statistics.moments.mean,
        "sd": statistics.moments.variance.sqrt(),
        "peak": statistics.peak,
        "largest": statistics.largest.values[:, 0],
        **{name: quantiles[:, place] for place, name in enumerate(QUANTILES)},
        "positive_rate": statistics.sketch.positive_share,
        "firing_rate": statistics.sketch.share_beyond(FIRES * statistics.peak),
    }


def decoded_columns(decoded: Decoded, model: LanguageModel) -> dict[str, np.ndarray]:
    """Return how special each neuron is in one matrix, and its foremost token."""
    table = decoded.frame(model)
    name = decoded.matrix
    return {
        f"{name}_score": table["score"].to_numpy(dtype=np.float32),
        f"{name}_peak": table["peak"].to_numpy(dtype=np.float32),
        f"{name}_sign": table["sign"].to_numpy(dtype=np.int8),
        f"{name}_token": table["token"].to_numpy(),
    }


def words_of(model: LanguageModel) -> np.ndarray:
    """Return the text of every token of the vocabulary."""
    return np.array([model.token_text(t) for t in range(model.anatomy.d_vocab)], dtype=object)


def decoded_table(decoded: Sequence[Decoded], model: LanguageModel) -> pd.DataFrame:
    """Return address, layer, index, matrix, sign, rank, token, text and z of every kept token."""
    import pandas as pd

    words = words_of(model)
    frames = []
    for each in decoded:
        neurons, sides, top = each.tokens.shape
        token = each.tokens.numpy().reshape(-1)
        layer = np.repeat(each.layer.numpy().astype(np.int32), sides * top)
        index = np.repeat(each.index.numpy().astype(np.int32), sides * top)
        frames.append(
            pd.DataFrame(
                {
                    "layer": layer,
                    "index": index,
                    "matrix": each.matrix,
                    "sign": np.tile(np.repeat(np.array([1, -1], dtype=np.int8), top), neurons),
                    "rank": np.tile(np.arange(top, dtype=np.int8), neurons * sides),
                    "token": token.astype(np.int32),
                    "text": words[token],
                    "z": each.z.numpy().reshape(-1).astype(np.float32),
                }
            )
        )
    joined = pd.concat(frames, ignore_index=True)
    # Of layers that were not decoded there is nothing to say.
    return joined[joined["token"] >= 0].reset_index(drop=True)


def spelled(token: np.ndarray, window: np.ndarray, model: LanguageModel) -> np.ndarray:
    """Return what each token adds to the text, object[token]; joined, they read as the text does.

    A token may be a part of a character only, as of an é, of a letter of another script or of an
    emoji, and decodes to no text by itself. The character then stands whole with the first of its
    tokens, and the others add "". Half a character at a window's end stays one, U+FFFD.

    Args:
        token: int[token], the corpus.
        window: int[token], which window each is in.
        model: whose tokens they are.
    """
    words = words_of(model)
    text: np.ndarray = words[token]
    is_part = np.array([HALF in word for word in words])[token]
    reached = 0
    for first in is_part.nonzero()[0].tolist():
        if first < reached:
            continue
        for last in range(first + 1, min(first + LONGEST, len(token))):
            if not is_part[last] or window[last] != window[first]:
                break
            whole = model.text(token[first : last + 1].tolist())
            if HALF not in whole:
                reached = last + 1
                text[first], text[first + 1 : reached] = whole, ""
                break
    return text


def tokens_table(windows: Windows, model: LanguageModel) -> pd.DataFrame:
    """Return the corpus: place, text's number, position in it, token and what it adds to the text.

    See :func:`spelled` for tokens that are parts of a character.
    """
    import pandas as pd

    token = np.concatenate([np.array(w.ids, dtype=np.int32) for w in windows.windows])
    window = np.concatenate(
        [np.full(len(w.ids), n, dtype=np.int32) for n, w in enumerate(windows.windows)]
    )
    return pd.DataFrame(
        {
            "place": np.arange(len(token), dtype=np.int64),
            "document": np.concatenate(
                [np.full(len(w.ids), w.text, dtype=np.int32) for w in windows.windows]
            ),
            "position": np.concatenate(
                [np.arange(w.start, w.start + len(w.ids), dtype=np.int32) for w in windows.windows]
            ),
            "window": window,
            "token": token,
            "text": spelled(token, window, model),
        }
    )


def examples_table(collected: Collected, seed: int) -> pa.Table:
    """Return layer, index, group, rank, value and place of the kept examples.

    Group "top" holds the largest values of the whole corpus, exactly; the others a few of the
    sampled tokens each, drawn from the sample by its values' ranks.
    """
    import pyarrow as pa

    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("layer", "index", "group", "rank", "value", "place")
    }
    names = ["top", *GROUPS]
    offset = 0
    for layer, statistics in collected.layers.items():
        count = len(statistics.peak)
        values, places = statistics.largest.values, statistics.largest.places
        sampled = _grouped(collected.sample.values[:, offset : offset + count], seed + layer)
        offset += count
        parts = [(0, values, places)]
        for group, (chosen, found) in enumerate(sampled, start=1):
            parts.append((group, found, collected.sample.places[chosen]))
        for group, some, where in parts:
            kept = where >= 0
            unit, rank = kept.nonzero(as_tuple=True)
            columns["layer"].append(np.full(len(unit), layer, dtype=np.int32))
            columns["index"].append(unit.numpy().astype(np.int32))
            columns["group"].append(np.full(len(unit), group, dtype=np.int8))
            columns["rank"].append(rank.numpy().astype(np.int8))
            columns["value"].append(some[kept].float().numpy())
            columns["place"].append(where[kept].numpy())
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    groups = pa.DictionaryArray.from_arrays(pa.array(joined.pop("group")), pa.array(names))
    return pa.table({**joined, "group": groups})


def _grouped(sample: Tensor, seed: int) -> list[tuple[Tensor, Tensor]]:
    """For each group, rows of the sample and their values, [unit, few] each, the largest first."""
    size = len(sample)
    if not size:
        return []
    values, order = sample.float().T.sort(dim=1, stable=True)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for low, high in GROUPS.values():
        first, last = int(low * size), max(int(low * size) + 1, int(high * size))
        width = last - first
        draw = torch.rand(len(values), width, generator=generator).argsort(1)[:, :PER_GROUP]
        place = first + draw.sort(dim=1, descending=True).values
        found.append((order.gather(1, place), values.gather(1, place)))
    return found


def sketches_table(collected: Collected) -> pa.Table:
    """Return layer, index, and the middles and counts of each neuron's bins that hold anything."""
    import pyarrow as pa

    middles = bin_middles().float().numpy()
    layers, indices, bins, counts, ends = [], [], [], [], [np.zeros(1, dtype=np.int64)]
    reached = 0
    for layer, statistics in collected.layers.items():
        table = statistics.sketch.counts.numpy()
        unit, place = table.nonzero()
        sizes = np.bincount(unit, minlength=len(table))
        ends.append(reached + sizes.cumsum())
        reached = int(ends[-1][-1])
        bins.append(middles[place])
        counts.append(table[unit, place])
        layers.append(np.full(len(table), layer, dtype=np.int32))
        indices.append(np.arange(len(table), dtype=np.int32))
    offsets = pa.array(np.concatenate(ends).astype(np.int32))
    return pa.table(
        {
            "layer": np.concatenate(layers),
            "index": np.concatenate(indices),
            "bins": pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(bins))),
            "counts": pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(counts))),
        }
    )


def labels_table(found: LabelStatistics, neurons: pd.DataFrame) -> pd.DataFrame:
    """Return label, its number of texts, address, layer, index and the statistics."""
    import pandas as pd

    frames = [
        neurons[["address", "layer", "index"]].assign(
            label=label,
            texts=count,
            average_precision=found.average_precision[row].float().numpy(),
            mutual_information=found.mutual_information[row].float().numpy(),
            selectivity=found.selectivity[row].float().numpy(),
            activation_probability=found.activation_probability[row].float().numpy(),
        )
        for row, (label, count) in enumerate(zip(found.labels, found.counts, strict=True))
    ]
    return pd.concat(frames, ignore_index=True)
