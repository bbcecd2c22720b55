"""A corpus pass equals a naive two-pass computation over all values, however it is split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import torch

from patchclamp.engine.engine import Engine
from patchclamp.errors import InputError, Stopped
from patchclamp.methods.corpus_pass import Collected, Reader, Windows, cut
from patchclamp.sites import Site
from tests.unit.words import TEXTS, ids_of, reader

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchclamp.models.language_model import LanguageModel


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return reader()


@pytest.fixture(scope="module")
def naive(model: LanguageModel) -> dict[int, torch.Tensor]:
    """All values of all neurons by TransformerLens, window after window."""
    bridge = model.bridge
    hooks = {layer: model.anatomy.hook(Site("neuron", layer, 0, "post")) for layer in range(4)}
    found: dict[int, list[torch.Tensor]] = {layer: [] for layer in hooks}
    for text in TEXTS:
        ids = ids_of(text)
        for start in range(0, len(ids), 9):
            rows = torch.tensor([[1, *ids[start : start + 9]]])
            with torch.no_grad():
                _, cache = bridge.run_with_cache(rows, names_filter=list(hooks.values()))
            for layer, hook in hooks.items():
                found[layer].append(cache[hook][0, 1:])
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def windows(model: LanguageModel, shard_tokens: int = 40, *, whole: bool = False) -> Windows:
    return cut(model, TEXTS, context=10, shard_tokens=shard_tokens, whole_texts=whole)


def on_worker(model: LanguageModel, job: Callable[[], T]) -> T:
    return Engine.of(model).queue.submit(lambda _stop: job()).result()


def collected(model: LanguageModel, corpus: Windows, batch: int = 25) -> Collected:
    def job() -> Collected:
        into = Collected.nothing(model, top=5, sample=20)
        reader = Reader(Engine.of(model), corpus, batch_tokens=batch)
        for shard in corpus.shards:
            for _ in reader.read(shard, into):
                pass
        return into

    return on_worker(model, job)


def test_statistics_are_those_of_two_passes(
    model: LanguageModel, naive: dict[int, torch.Tensor]
) -> None:
    found = collected(model, windows(model))
    assert found.tokens == len(naive[0])
    for layer, values in naive.items():
        mine, exact = found.layers[layer], values.double()
        assert mine.moments.count == len(values)
        scale = exact.abs().amax(0)
        assert ((mine.moments.mean - exact.mean(0)).abs() <= 1e-5 * scale).all()
        torch.testing.assert_close(
            mine.moments.variance, exact.var(0, correction=0), rtol=1e-4, atol=1e-12
        )
        torch.testing.assert_close(mine.peak, scale.float(), rtol=1e-4, atol=1e-6)
        top = exact.topk(5, 0)
        torch.testing.assert_close(mine.largest.values.double(), top.values.T, rtol=1e-4, atol=1e-6)


def test_shards_batches_and_merging_change_nothing(model: LanguageModel) -> None:
    whole = collected(model, windows(model, 10**6), batch=10**6)
    corpus = windows(model, 30)
    assert len(corpus.shards) > 5

    def apart() -> Collected:
        merged = Collected.nothing(model, top=5, sample=20)
        for shard in reversed(corpus.shards):
            part = Collected.nothing(model, top=5, sample=20)
            for _ in Reader(Engine.of(model), corpus, batch_tokens=17).read(shard, part):
                pass
            merged.merge(Collected.of_tensors(part.to_tensors()))
        return merged

    merged = on_worker(model, apart)
    assert merged.tokens == whole.tokens
    assert torch.equal(merged.sample.places, whole.sample.places)
    for layer, mine in merged.layers.items():
        other = whole.layers[layer]
        torch.testing.assert_close(
            mine.moments.variance, other.moments.variance, rtol=1e-5, atol=1e-10
        )
        assert torch.equal(mine.largest.places, other.largest.places)
        assert int(mine.sketch.counts.sum()) == whole.tokens * len(mine.peak)


def test_a_place_leads_back_to_its_token(model: LanguageModel) -> None:
    corpus = windows(model)
    for place, token in enumerate(ids_of(" ".join(TEXTS))):
        window, inside = corpus.at(place)
        assert window.ids[inside] == token


def test_texts_longer_than_a_window_are_split_and_counted(model: LanguageModel) -> None:
    corpus = windows(model)
    assert corpus.texts == 14
    assert corpus.split == sum(len(text.split()) > 9 for text in TEXTS)
    assert corpus.tokens == sum(len(text.split()) for text in TEXTS)
    assert all(len(window.ids) <= 9 for window in corpus.windows)


@pytest.mark.parametrize("per_prompt", ["max", "mean", "last"])
def test_the_value_of_a_whole_text_is_that_of_its_tokens(
    model: LanguageModel, naive: dict[int, torch.Tensor], per_prompt: Any
) -> None:
    corpus = windows(model, 25, whole=True)
    assert len(corpus.shards) > 3

    def job() -> torch.Tensor:
        reader = Reader(Engine.of(model), corpus, per_prompt, batch_tokens=20)
        rows = []
        for shard in corpus.shards:
            own = torch.full((len(reader.texts_of(shard)), 4 * 48), torch.nan)
            for _ in reader.read(shard, Collected.nothing(model), own):
                pass
            rows.append(own)
        return torch.cat(rows)

    found = on_worker(model, job)
    every = torch.cat(list(naive.values()), 1)
    begin = 0
    for text, row in zip(TEXTS, found, strict=True):
        own = every[begin : begin + len(text.split())]
        begin += len(own)
        truth = {"max": own.amax(0), "mean": own.mean(0), "last": own[-1]}[per_prompt]
        torch.testing.assert_close(row, truth, rtol=1e-4, atol=1e-5)


def test_another_corpus_or_another_cut_has_another_digest(model: LanguageModel) -> None:
    digests = {
        windows(model).digest,
        cut(model, TEXTS, context=9).digest,
        cut(model, TEXTS[1:], context=10).digest,
        cut(model, [*TEXTS[:-1], TEXTS[-1] + " w1"], context=10).digest,
    }
    assert len(digests) == 4
    assert windows(model, 30).digest == windows(model, 60).digest


@pytest.mark.parametrize("texts", [[], ["", "  "]])
def test_an_empty_corpus_is_a_sentence(model: LanguageModel, texts: list[str]) -> None:
    with pytest.raises(InputError, match="empty"):
        cut(model, texts)


def test_what_cannot_be_read_is_a_sentence(model: LanguageModel) -> None:
    with pytest.raises(InputError, match="tokens, not 1"):
        cut(model, TEXTS, context=1)
    with pytest.raises(InputError, match=r"number 1 is none \(int\)"):
        cut(model, ["w1", 3], context=10)
    with pytest.raises(InputError, match="max, mean or last"):
        on_worker(model, lambda: Reader(Engine.of(model), windows(model), "sum"))  # type: ignore[arg-type]


def test_a_stopped_shard_says_so(model: LanguageModel) -> None:
    corpus = windows(model)

    def job() -> None:
        reader = Reader(Engine.of(model), corpus)
        into = Collected.nothing(model)
        with pytest.raises(Stopped):
            list(reader.read(corpus.shards[0], into, should_stop=lambda: True))

    on_worker(model, job)
