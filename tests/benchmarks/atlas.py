"""NeuronAtlas: decoding and reading a corpus, against the bare minimum; on Ray; and its memory.

*Decoding* one matrix of some layers of the default model, controls and scores included, against
the bare product with the unembedding and the top-k of either sign, over the same vectors in the
same blocks. What a decoder computes once for all layers (a mean and a covariance over the
vocabulary) is not in it. Both sides give the same tokens, or the benchmark ends.

*The corpus pass*, every statistic on and a value kept of every text, against Hugging Face's own
forward passes of the same batches: without the LM head, as the pass itself runs, and with it.

*Ray* with one actor against this process, with as many torch threads: tokens a second between the
first sign of progress and the last, so that neither process start nor loading counts; merging and
checkpoints do.

*Memory*: what a process of its own holds at most, of a model with few weights and 8,192 neurons.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from tests.benchmarks.measure import Figure, costlier, faster, in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from patchclamp.atlas.build import Progress
    from patchclamp.models.language_model import LanguageModel

ROOT = Path(__file__).resolve().parents[2]
LAYERS = (14, 15)
TOKENS = 2048  # of the corpus pass
SHARD, SHARDS = 2048, 3  # on Ray
SHORT, LONG = 10_000, 100_000  # tokens whose memory is compared
LARGER = 1.1


def figures(rounds: int = 2) -> Iterator[Figure | str]:
    """Measure on the default model, and the memory on a tiny one."""
    yield decoding(rounds)
    yield from corpus_pass(rounds)
    yield from ray()
    yield from memory()


def decoding(rounds: int) -> Figure:
    """Some layers of what every neuron writes."""
    from patchclamp import load
    from patchclamp.methods.decoded_weights import BLOCK, TOP, Decoded, Decoder
    from patchclamp.models import catalogue

    decoder = Decoder(load(catalogue.SMOLLM2.name))
    vectors = [decoder.rows("down", layer) for layer in LAYERS]
    unembed = decoder.model.bridge.W_U.T.contiguous().float()

    def ours(_: float) -> Tensor:
        found: list[Decoded] = list(decoder.decode("down", layers=LAYERS))
        last = found[-1]
        return torch.cat([last.tokens[last.layer == layer] for layer in LAYERS])

    def bare(_: float) -> Tensor:
        found = []
        for rows in vectors:
            for some in rows.split(BLOCK):
                logits = some @ unembed.T
                both = logits.topk(TOP), logits.topk(TOP, largest=False)
                found.append(torch.stack([each.indices for each in both], 1))
        return torch.cat(found)

    with torch.no_grad():
        same = float((ours(0.0)[:, :, 0] == bare(0.0)[:, :, 0]).double().mean())
        if same < 0.999:  # two tokens may have the same logit to rounding
            raise ValueError(f"They agree on {same:.2%} of the tokens.")
        t = in_turns({"bare": bare, "ours": ours}, rounds)
    name = f"decode-weights:{len(LAYERS)}-layers:ours/product-and-top-k"
    return costlier(name, t["ours"], t["bare"], 1.3)


def corpus_pass(rounds: int) -> Iterator[Figure]:
    """One shard of the shipped passages."""
    from transformers import AutoModelForCausalLM

    from patchclamp import load
    from patchclamp.engine.engine import Engine
    from patchclamp.engine.neuron_stream import NeuronStream
    from patchclamp.methods.corpus_pass import Collected, Reader, cut
    from patchclamp.models import catalogue, store

    model = load(catalogue.SMOLLM2.name)
    engine = Engine.of(model)
    windows = cut(model, texts_of(model, TOKENS), shard_tokens=10 * TOKENS, whole_texts=True)
    batches: list[Tensor] = []

    class Recorded(NeuronStream):
        """Remembers what it was given."""

        def run(
            self,
            ids: Tensor,
            consume: Callable[[int, Tensor], None],
            *,
            should_stop: Callable[[], bool] | None = None,
        ) -> None:
            batches.append(ids)
            super().run(ids, consume, should_stop=should_stop)

    units = sum(model.anatomy.n_neurons(layer) for layer in range(model.anatomy.n_layers))

    def ours(_: float, reader: Reader) -> int:
        def job(_stop: object) -> int:
            shard = windows.shards[0]
            own = torch.full((len(reader.texts_of(shard)), units), torch.nan)
            return sum(reader.read(shard, into, own))

        return engine.queue.submit(job).result()

    # What is collected grows over the rounds, as over a corpus; it is made once.
    into = Collected.nothing(model)
    recording, plain = Reader(engine, windows, "max"), Reader(engine, windows, "max")
    recording._stream = Recorded(engine)
    tokens = ours(0.0, recording)
    bare = AutoModelForCausalLM.from_pretrained(store.cached_path(catalogue.SMOLLM2)).eval()

    def forward(_: float, run: Callable[..., object]) -> None:
        with torch.no_grad():
            for ids in batches:
                run(ids, use_cache=False)

    ways: dict[str, Callable[[float], object]] = {
        "ours": partial(ours, reader=plain),
        "no head": partial(forward, run=bare.model),
        "head": partial(forward, run=bare),
    }
    t = in_turns(ways, rounds)
    name = f"corpus-pass:{tokens}-tokens:"
    yield faster(name + "tokens-a-second:ours/forward-without-head", t["no head"], t["ours"], 0.85)
    yield faster(name + "tokens-a-second:ours/forward-with-head", t["head"], t["ours"], 0.85)


def ray() -> Iterator[Figure | str]:
    """Read the same corpus here and with one actor."""
    from patchclamp import load
    from patchclamp.atlas.atlas import Atlas
    from patchclamp.atlas.build import Ray, Reading
    from patchclamp.models import catalogue
    from tests.cluster.head import cluster

    threads = torch.get_num_threads()
    model = load(catalogue.SMOLLM2.name)

    def loaded() -> LanguageModel:
        torch.set_num_threads(threads)
        return load(catalogue.SMOLLM2.name)

    texts = texts_of(model, SHARD * SHARDS)
    speeds = {}
    with cluster(memory=2 * 2**30), tempfile.TemporaryDirectory() as folder:
        engines: dict[str, Literal["local"] | Ray] = {"here": "local", "ray": Ray(1, loaded)}
        for name, engine in engines.items():
            seen: list[tuple[float, int]] = []

            def tell(progress: Progress, seen: list[tuple[float, int]] = seen) -> None:
                seen.append((time.perf_counter(), progress.done))

            Atlas.build(
                model,
                texts,
                Path(folder) / name,
                reading=Reading(shard_tokens=SHARD),
                decode=[],
                engine=engine,
                tell=tell,
            )
            (began, first), (ended, last) = seen[0], seen[-1]
            speeds[name] = (last - first) / (ended - began)
    yield f"# {speeds['here']:.0f} tokens/s here, {speeds['ray']:.0f} on Ray; {threads} threads"
    name = f"corpus-pass:ray-1-actor/here:shards-of-{SHARD}"
    yield Figure(name, speeds["ray"] / speeds["here"], 0.8, at_least=True)


def memory() -> Iterator[Figure | str]:
    """Read a short and a long corpus, in a process each."""
    most = {}
    for tokens in (SHORT, LONG):
        command = [sys.executable, "-m", "tests.benchmarks.atlas", str(tokens)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        most[tokens] = found["most"]
        yield (
            f"# {tokens:,} tokens: {found['most'] / 1e6:.0f} MB at most, "
            f"{(found['most'] - found['before']) / 1e6:.0f} MB over the process with the model; "
            f"all values would be {found['all'] / 1e6:.0f} MB; {found['seconds']:.0f} s"
        )
    name = f"corpus-memory:peak:{LONG}/{SHORT}-tokens"
    yield Figure(name, most[LONG] / most[SHORT], LARGER, at_least=False)


def texts_of(model: LanguageModel, tokens: int) -> list[str]:
    """Return the first shipped passages, of so many tokens."""
    from patchclamp.corpora import english

    found: list[str] = []
    count = 0
    for text in english.texts():
        if count >= tokens:
            break
        found.append(text)
        count += len(model.tokens_of(text))
    return found


def main(tokens: int) -> None:
    """Read a corpus of so many tokens with a tiny model and print what it took, as JSON."""
    import transformers as hf

    from patchclamp.atlas.atlas import Atlas
    from patchclamp.models.language_model import LanguageModel
    from tests.unit.words import Words

    torch.manual_seed(0)
    config = hf.LlamaConfig(
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        hidden_size=16,
        intermediate_size=4096,
        max_position_embeddings=128,
        vocab_size=64,
    )
    plain = hf.LlamaForCausalLM(config).eval()
    model = LanguageModel(plain, None, name="words", reference=["w1 w2 w9", "w7 w8 w3 w30"])
    model.tokenizer = Words()
    words = torch.randint(50, (tokens // 100, 100)).tolist()
    texts = [" ".join(f"w{word}" for word in text) for text in words]
    with tempfile.TemporaryDirectory() as folder:
        Atlas.build(model, texts[:1], Path(folder) / "warm", decode=[])
        before, began = held(), time.monotonic()
        atlas = Atlas.build(model, texts, Path(folder) / "atlas", decode=[])
        seconds = time.monotonic() - began
        assert atlas.manifest.tokens == tokens
    found = {"before": before, "most": held(), "all": 4 * tokens * 8192, "seconds": seconds}
    print(json.dumps(found))


def held() -> int:
    """Return the most bytes that this process held so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(int(sys.argv[1]))
