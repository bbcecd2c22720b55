"""A unit over a corpus of texts equals plain TransformerLens at every token; groups are fair."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from patchclamp.corpora.english import Passage
from patchclamp.engine.engine import Engine
from patchclamp.errors import InputError, MetricError, Stopped
from patchclamp.methods.corpus_examples import examples_of, own_example, shipped_texts
from patchclamp.methods.example_groups import CorpusUnit, Survey
from patchclamp.methods.objective import Objective, objective
from patchclamp.methods.text_examples import TextExample, endings, text_examples, tokenized
from tests.unit import letters, tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchclamp.models.language_model import LanguageModel

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "a b c. d, e",
    "zebra zebra zebra zebra",
    "pack my box with five dozen liquor jugs",
    "x",
    "how vexingly quick daft zebras jump",
]
UNIT = "L2.N5"


def engine(name: str = "llama") -> Engine:
    return Engine.of(letters.model(name))


def on_worker(one: Engine, job: Callable[[], Any]) -> Any:
    return one.queue.submit(lambda _stop: job()).result(60)


def naive(name: str, ids: list[int], unit: str = UNIT) -> torch.Tensor:
    """Return the unit at each token of one context, from a bridge that no engine touches."""
    wanted = objective(letters.model(name), unit)
    taken: dict[str, torch.Tensor] = {}

    def keep(x: torch.Tensor, hook: Any) -> None:
        taken[hook.name] = x

    with torch.no_grad():
        tiny.fresh_bridge(name).run_with_hooks(
            torch.tensor([ids]), fwd_hooks=[(hook, keep) for hook in wanted.hooks]
        )
    return wanted.map(taken)[0]


def words(model: LanguageModel, text: str) -> list[int]:
    return list(model.tokenizer(text, add_special_tokens=False).input_ids)


def found_on(texts: list[Any] = TEXTS, unit: str = UNIT, **options: Any) -> CorpusUnit:
    one = engine()
    return examples_of(one, objective(one.model, unit), texts, Survey(**options))


@pytest.mark.parametrize("unit", [UNIT, "L0.N3:gate", "L3.N40"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_every_activation_and_its_statistics_equal_plain_transformerlens(
    name: str, unit: str
) -> None:
    if name == "gpt2" and ":gate" in unit:
        unit = "L0.N3:pre"
    one = engine(name)
    found = examples_of(one, objective(one.model, unit), TEXTS)
    parts = [
        naive(name, [letters.BOS, *words(one.model, text)], unit)[1:]  # its own tokens alone
        for text in TEXTS
    ]
    truth = torch.cat(parts)
    assert truth.std() > 0.01
    assert torch.allclose(found.values, truth, atol=1e-5)
    assert found.count == sum(len(words(one.model, text)) for text in TEXTS)
    assert found.maximum == float(found.values.max()) == pytest.approx(float(truth.max()), abs=1e-5)
    assert found.mean == pytest.approx(float(truth.double().mean()), abs=1e-6)
    assert found.sd == pytest.approx(float(np.std(truth.numpy())), abs=1e-6)


def test_a_logit_a_sum_and_a_direction_are_measured_at_every_token_too() -> None:
    one = engine()
    model = one.model
    vector = torch.linspace(-1, 1, 32)
    logit = objective(model, ("logits", " f"))
    mixed = 2 * logit - objective(model, ("L1.resid_post[line]", vector)) + 1
    found = examples_of(one, mixed, TEXTS[:2])
    parts = []
    for text in TEXTS[:2]:
        taken: dict[str, torch.Tensor] = {}

        def keep(x: torch.Tensor, hook: Any, taken: dict[str, torch.Tensor] = taken) -> None:
            taken[hook.name] = x

        ids = torch.tensor([[letters.BOS, *words(model, text)]])
        with torch.no_grad():
            logits = tiny.fresh_bridge("llama").run_with_hooks(
                ids, fwd_hooks=[("blocks.1.hook_out", keep)]
            )
        stream = next(iter(taken.values()))
        along = stream @ vector / (vector @ vector)
        parts.append((2 * logits[0, :, model.token_id(" f")] - along[0] + 1)[1:])
    assert torch.allclose(found.values, torch.cat(parts), atol=1e-4)


def test_a_long_text_is_split_into_contexts_of_its_own_and_counted_and_nothing_is_lost() -> None:
    one = engine()
    ids = words(one.model, TEXTS[0])
    found = examples_of(one, objective(one.model, UNIT), TEXTS, Survey(context=16))
    room = 15
    pieces = math.ceil(len(ids) / room)
    assert pieces > 2
    cuts = [len(ids) * at // pieces for at in range(pieces + 1)]
    truth = torch.cat(
        [
            naive("llama", [letters.BOS, *ids[begin:end]])[1:]
            for begin, end in itertools.pairwise(cuts)
        ]
    )
    assert torch.allclose(found.values[: len(ids)], truth, atol=1e-5)
    assert found.count == sum(len(words(one.model, text)) for text in TEXTS)
    longer = sum(len(words(one.model, text)) > room for text in TEXTS)
    assert found.split == longer > 1
    assert f"{longer} texts were longer than a context and split." in found.note
    assert found.total > found.sources == len(TEXTS)
    # A cut is not without effect: in one context the same tokens have other activations.
    assert not torch.allclose(truth, naive("llama", [letters.BOS, *ids])[1:], atol=1e-3)


def test_a_context_longer_than_the_models_own_is_the_models_own() -> None:
    one = engine()
    text = "ab " * 100
    found = examples_of(one, objective(one.model, UNIT), [text], Survey(context=10_000))
    assert found.split == 1
    assert found.count == len(words(one.model, text))
    assert found.total == math.ceil(found.count / (one.model.n_ctx - 1))


def test_an_encoder_is_measured_between_its_special_tokens() -> None:
    model = tiny.model("bert")
    one = Engine.of(model)
    texts: list[Any] = [tiny.ids(7, seed=1).tolist(), tiny.ids(9, seed=2)]
    found = examples_of(one, objective(model, UNIT), texts)
    bridge = tiny.fresh_bridge("bert")
    parts = []
    for given in texts:
        taken: dict[str, torch.Tensor] = {}

        def keep(x: torch.Tensor, hook: Any, taken: dict[str, torch.Tensor] = taken) -> None:
            taken[hook.name] = x

        hook = objective(model, UNIT).hooks[0]
        with torch.no_grad():
            bridge.run_with_hooks(torch.as_tensor(given)[None], fwd_hooks=[(hook, keep)])
        parts.append(taken[hook][0, :, 5])
    assert torch.allclose(found.values, torch.cat(parts), atol=1e-5)


def test_top_examples_are_the_contexts_with_the_largest_activations() -> None:
    found = found_on(top=3)
    top = found.groups[0]
    assert top.name == "top"
    peaks = sorted((float(e.max()) for e in per_text(found)), reverse=True)
    assert [example.activation for example in top.examples] == pytest.approx(peaks[:3])
    assert top.examples[0].activation == found.maximum == top.high
    for example in top.examples:
        assert isinstance(example, TextExample)
        assert example.peak is not None
        assert float(example.values[example.peak]) == example.activation == example.values.max()
        assert torch.equal(example.values, per_text(found)[example.source])
        assert example.text == TEXTS[example.source]
        assert len(example.tokens) == len(example.values) == len(example.ids)


def per_text(found: CorpusUnit) -> list[torch.Tensor]:
    """Cut the values at the texts' own lengths."""
    model = letters.model("llama")
    return list(found.values.split([len(words(model, text)) for text in TEXTS]))


def many() -> list[torch.Tensor]:
    return [tiny.ids(5 + at % 4, seed=at) for at in range(60)]


def test_groups_are_the_percentiles_of_contexts_and_no_context_comes_twice() -> None:
    found = found_on(many(), top=5, each=4)
    peaks = np.sort([float(group.max()) for group in cut_at(found, many())])[::-1]
    names = [group.name for group in found.groups]
    assert names == [
        "top",
        "90th to 100th percentile",
        "75th to 90th percentile",
        "50th to 75th percentile",
        "0th to 50th percentile",
        "lowest",
    ]
    # The first 5 of 60 are the top; of the upper tenth, 6 contexts, one is left.
    bounds = [(0, 5), (5, 6), (6, 15), (15, 30), (30, 60)]
    for group, (begin, end) in zip(found.groups, bounds, strict=False):
        assert group.count == end - begin
        assert (group.high, group.low) == pytest.approx((peaks[begin], peaks[end - 1]))
        assert len(group.examples) == min(end - begin, 5 if group.name == "top" else 4)
        inside = [example.activation for example in group.examples]
        assert inside == sorted(inside, reverse=True)
        assert all(group.low <= one <= group.high for one in inside)
    sources = [e.source for group in found.groups[:-1] for e in group.examples]
    assert len(set(sources)) == len(sources)


def cut_at(found: CorpusUnit, texts: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(found.values.split([len(text) for text in texts]))


def test_the_lowest_are_shown_of_a_unit_that_can_be_negative_only() -> None:
    found = found_on(many(), top=4)
    lowest = found.groups[-1]
    assert lowest.name == "lowest"
    assert lowest.examples[0].activation == found.minimum < 0
    assert [e.activation for e in lowest.examples] == sorted(e.activation for e in lowest.examples)
    one = engine()
    squared = Objective.of_function(
        lambda v: v["blocks.2.mlp.hook_post"][..., 5].square().mean(-1),
        paths=("blocks.2.mlp.hook_post",),
        name="power",
    )
    assert "lowest" not in {g.name for g in examples_of(one, squared, many()).groups}


def test_a_function_of_activations_is_one_number_a_context_not_touched_by_padding() -> None:
    one = engine()
    hook = objective(one.model, UNIT).hooks[0]
    last = Objective.of_function(lambda v: v[hook][:, -1, 5], paths=(hook,), name="last")
    found = examples_of(one, last, TEXTS)
    truth = [float(naive("llama", [letters.BOS, *words(one.model, text)])[-1]) for text in TEXTS]
    assert found.values.tolist() == pytest.approx(truth, abs=1e-5)
    example = found.groups[0].examples[0]
    assert isinstance(example, TextExample)
    assert example.peak is None
    assert not len(example.values)
    assert example.row()["token"] is None


def test_the_histogram_counts_every_activation_once() -> None:
    found = found_on(bins=17)
    assert len(found.counts) == 17
    assert sum(found.counts) == found.count
    assert found.edges[0] == pytest.approx(found.minimum)
    assert found.edges[-1] == pytest.approx(found.maximum)
    table = found.histogram()
    inside = (found.values >= table["from"][3]) & (found.values < table["to"][3])
    assert int(inside.sum()) == table["count"][3]


def test_the_same_seed_draws_the_same_examples_and_another_one_others() -> None:
    def drawn(seed: int) -> list[int]:
        groups = found_on(many(), seed=seed, each=3, top=2).groups
        return [int(e.row()["source"]) for group in groups for e in group.examples]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_the_order_of_batches_and_what_stands_beside_a_text_change_nothing() -> None:
    found, alone = found_on(), found_on(TEXTS[3:4])
    assert torch.allclose(per_text(found)[3], alone.values, atol=1e-5)
    turned = found_on(TEXTS[::-1])
    assert turned.maximum == pytest.approx(found.maximum, abs=1e-5)
    assert turned.mean == pytest.approx(found.mean, abs=1e-6)


def test_progress_is_told_and_what_a_stop_left_is_kept_and_said() -> None:
    one = engine()
    unit = objective(one.model, UNIT)
    texts = [tiny.ids(40, seed=at) for at in range(80)]

    def partly() -> CorpusUnit:
        stop = False
        steps = text_examples(one, unit, texts, should_stop=lambda: stop)
        scan = next(steps)
        assert scan.total == 80
        assert 0 < scan.done < 80
        stop = True
        with pytest.raises(Stopped):
            next(steps)
        return scan.so_far()

    found = on_worker(one, partly)
    assert not found.finished
    assert f"Of 80 contexts {found.done} were measured." in found.note
    whole = examples_of(one, unit, texts)
    assert whole.finished
    assert whole.note == ""
    assert set(found.values.tolist()) < set(whole.values.tolist())


def test_only_the_blocks_up_to_the_unit_are_run() -> None:
    one = engine()
    ran: list[int] = []
    blocks = [*one.passes.shells["plain"].blocks, *one.passes.shells["hooked"].blocks]
    n = len(blocks) // 2
    handles = [
        block.register_forward_hook(lambda *_a, at=at: ran.append(at % n))
        for at, block in enumerate(blocks)
    ]
    try:
        examples_of(one, objective(one.model, "L1.N5"), TEXTS[:1])
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [0, 1]


def test_passages_are_told_by_kind_and_title_and_tokenized_texts_serve_several_units() -> None:
    one = engine()
    passage = Passage("novel", "Chapter 1", "a book", "call me ishmael")
    corpus = tokenized(one.model, [passage, "x y z"])
    assert corpus.count == len(words(one.model, passage.text)) + len(words(one.model, "x y z"))
    for unit in (UNIT, "L3.N7"):
        found = examples_of(one, objective(one.model, unit), corpus)
        labels = {e.row()["source"]: e.row()["label"] for g in found.groups for e in g.examples}
        assert labels == {0: "novel: Chapter 1", 1: ""}


def test_the_users_own_text_is_measured_as_the_corpus_is() -> None:
    one = engine()
    unit = objective(one.model, UNIT)
    own = on_worker(one, lambda: own_example(one, unit, TEXTS[0]))
    assert isinstance(own, TextExample)
    truth = naive("llama", [letters.BOS, *words(one.model, TEXTS[0])])[1:]
    assert torch.allclose(own.values, truth, atol=1e-5)
    assert own.activation == pytest.approx(float(truth.max()), abs=1e-5)
    assert (own.source, own.text, own.name) == (-1, TEXTS[0], f"token {own.peak}")
    found = found_on()
    assert found.share_above(own.activation) == pytest.approx(
        float((found.values > own.activation).double().mean())
    )
    assert found.share_above(found.maximum) == 0.0


def test_a_window_around_the_peak_keeps_its_tokens_and_their_activations_together() -> None:
    found = found_on(top=1)
    example = found.groups[0].examples[0]
    assert isinstance(example, TextExample)
    near = example.around(2, 1)
    assert near.peak is not None
    assert example.peak is not None
    assert float(near.values[near.peak]) == example.activation
    assert near.start + near.peak == example.start + example.peak
    assert len(near.ids) <= 4
    assert near.text in example.text


def test_what_leads_up_to_a_peak_ends_with_it_and_too_short_ones_are_left_out() -> None:
    top = found_on().groups[0].examples
    texts = [one for one in top if isinstance(one, TextExample)]
    peaks = [one.peak or 0 for one in texts]
    length = 1 + sorted(peaks)[len(peaks) // 2]
    ended = endings(texts, length)
    long = [(one.ids, peak) for one, peak in zip(texts, peaks, strict=True) if peak + 1 >= length]
    assert 0 < len(long) < len(texts)
    assert ended == [ids[peak + 1 - length : peak + 1] for ids, peak in long]


def test_the_table_has_one_row_an_example() -> None:
    found = found_on(top=2, each=1)
    table = found.frame()
    assert list(table.columns) == [
        "group", "activation", "source", "label", "position", "token", "text",
    ]  # fmt: skip
    assert len(table) == sum(len(group.examples) for group in found.groups)
    assert table["activation"][0] == found.maximum
    assert table["text"][0] == TEXTS[table["source"][0]]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "a list of texts with at least one in it"),
        ("one text", "a list of texts with at least one in it"),
        (["", "  "], "No text of the corpus has a token in it"),
        ([[5.5, 6.0]], "a string or a 1-D list of token ids"),
        ([[5, 1000]], "Token id 1000 is outside the vocabulary"),
        ([[[1, 2]]], "a string or a 1-D list of token ids"),
    ],
)
def test_a_corpus_that_cannot_be_run_is_told_in_a_sentence(texts: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        found_on(texts)


def test_texts_without_a_token_are_left_out_and_counted() -> None:
    found = found_on(["", "a b c", ""])
    assert found.count == len(words(letters.model("llama"), "a b c"))
    assert found.skipped == 2
    assert found.note == "2 texts have no token and count for nothing."


def test_texts_for_a_model_that_reads_none_are_refused() -> None:
    one = Engine.of(tiny.model("llama"))
    with pytest.raises(InputError, match="no tokenizer: give lists of token ids"):
        examples_of(one, objective(one.model, UNIT), ["text"])
    with pytest.raises(InputError, match="no tokenizer"):
        shipped_texts(one.model)
    assert len(shipped_texts(letters.model("llama"))) > 400


def test_own_text_that_is_empty_or_too_long_is_told() -> None:
    one = engine()
    unit = objective(one.model, UNIT)
    with pytest.raises(InputError, match="text is empty"):
        on_worker(one, lambda: own_example(one, unit, ""))
    with pytest.raises(InputError, match="takes at most 64"):
        on_worker(one, lambda: own_example(one, unit, "a b " * 60))


def test_an_activation_that_is_no_number_names_its_text() -> None:
    one = engine()
    hook = objective(one.model, UNIT).hooks[0]
    bad = Objective.of_function(lambda v: v[hook].sum((1, 2)) * torch.nan, paths=(hook,), name="f")
    with pytest.raises(MetricError, match=r"f is no finite number on text \d of the corpus"):
        examples_of(one, bad, TEXTS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"context": 2}, "context of a survey is at least 3"),
        ({"top": 0}, "top of a survey is at least 1"),
        ({"shares": (0.5, 0.9)}, "fall from below 1 to 0"),
        ({"shares": (1.5, 0.0)}, "fall from below 1 to 0"),
    ],
)
def test_a_survey_that_is_none_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Survey(**options)
