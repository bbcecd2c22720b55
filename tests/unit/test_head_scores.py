"""Head scores have known answers, and agree with TransformerLens where both are defined."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformer_lens.head_detector import detect_head

import patchclamp as pc
from patchclamp.engine.attention import Attention
from patchclamp.errors import InputError, MetricError, Stopped
from patchclamp.methods.head_scores import (
    SCORES,
    HeadScores,
    LayerScores,
    head_effects,
    random_induction,
    repeated_tokens,
    scores,
)
from patchclamp.methods.metric import Custom, Loss, bind_to
from tests.unit import tiny

if TYPE_CHECKING:
    from collections.abc import Sequence

MODELS = ["native", "gpt2", "llama", "neox", "gemma", "gemma3"]
DETECTED = {
    "previous": "previous_token_head",
    "duplicate": "duplicate_token_head",
    "induction": "induction_head",
}


def scored(
    ids: Sequence[int],
    pattern: torch.Tensor,
    *,
    causal: bool = True,
    rows: int = 100,
    thumb: int = 24,
) -> tuple[dict[str, torch.Tensor], torch.Tensor, int]:
    found = HeadScores(torch.tensor(ids), len(pattern), causal=causal, thumb=thumb)
    for start in range(0, len(ids), rows):
        found.add(start, pattern[:, start : start + rows])
    return found.result(), found.thumbs, found.block


def one(ids: Sequence[int], rows: Sequence[Sequence[float]], **options: Any) -> dict[str, float]:
    values, _, _ = scored(ids, torch.tensor([rows], dtype=torch.float32), **options)
    return {name: float(value[0]) for name, value in values.items()}


def reading(*sources: int) -> list[list[float]]:
    """Make a pattern whose rows read one source each, wholly."""
    return [[float(s == source) for s in range(len(sources))] for source in sources]


def random_pattern(heads: int, length: int, *, causal: bool = True, seed: int = 0) -> torch.Tensor:
    drawn = torch.rand(heads, length, length, generator=torch.Generator().manual_seed(seed)) ** 4
    pattern = drawn.tril() if causal else drawn
    return pattern / pattern.sum(-1, keepdim=True)


def repetitive(length: int, seed: int = 0) -> torch.Tensor:
    """Draw token ids of which most come more than once."""
    return torch.randint(3, 10, (length,), generator=torch.Generator().manual_seed(seed))


# Known answers ------------------------------------------------------------------------------------


def test_a_previous_token_head_scores_as_one() -> None:
    found = one([5, 6, 7, 8, 5], reading(0, 0, 1, 2, 3))
    assert found == {
        "previous": pytest.approx(4 / 5),
        "duplicate": 0,
        "induction": 0,
        "current": pytest.approx(1 / 5),
        "first": pytest.approx(2 / 5),
        "entropy": 0,
        "distance": pytest.approx(4 / 5),
    }


def test_an_induction_head_reads_what_followed_and_a_duplicate_head_the_same_token() -> None:
    ids = [5, 6, 7, 5, 6, 7]
    induction = one(ids, reading(0, 0, 0, 1, 2, 3))
    assert induction["induction"] == pytest.approx(3 / 6)
    assert induction["duplicate"] == 0
    assert induction["distance"] == pytest.approx((0 + 1 + 2 + 2 + 2 + 2) / 6)
    duplicate = one(ids, reading(0, 0, 0, 0, 1, 2))
    assert duplicate["duplicate"] == pytest.approx(3 / 6)
    assert duplicate["induction"] == 0


def test_a_repeated_token_may_be_followed_by_itself() -> None:
    # Both tokens of "5 5": what followed the first 5 is where the second stands.
    found = one([4, 5, 5], reading(0, 1, 2))
    assert found["induction"] == pytest.approx(1 / 3)
    assert found["current"] == 1


def test_entropy_is_in_nats_and_distance_in_tokens() -> None:
    uniform = torch.ones(4, 4).tril() / torch.arange(1.0, 5.0)[:, None]
    found = one([1, 2, 3, 4], uniform.tolist())
    assert found["entropy"] == pytest.approx(sum(math.log(n) for n in (1, 2, 3, 4)) / 4)
    assert found["distance"] == pytest.approx((0 + 0.5 + 1 + 1.5) / 4)
    assert found["first"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_one_token_has_no_previous_one() -> None:
    found = one([3], [[1.0]])
    assert math.isnan(found["previous"])
    assert math.isnan(found["duplicate"])
    assert math.isnan(found["induction"])
    assert [found[n] for n in ("current", "first", "entropy", "distance")] == [1, 1, 0, 0]


def test_without_a_repeated_token_duplicate_and_induction_are_not_a_number_rather_than_0() -> None:
    values, _, _ = scored(range(9), random_pattern(2, 9))
    for name, value in values.items():
        assert bool(value.isnan().all()) == (name in {"duplicate", "induction"})
        assert bool(value.isfinite().all()) == (name not in {"duplicate", "induction"})


def test_nan_in_a_pattern_is_nan_in_its_heads_scores_and_pixel_alone() -> None:
    ids, pattern = repetitive(40).tolist(), random_pattern(3, 40)
    clean, thumbs, block = scored(ids, pattern)
    broken = pattern.clone()
    broken[1, 30, 7] = torch.nan
    values, seen, _ = scored(ids, broken, rows=7)
    for name in SCORES:
        assert bool(values[name][1].isnan())
        assert torch.allclose(values[name][[0, 2]], clean[name][[0, 2]], rtol=1e-6)
    assert seen.isnan().nonzero().tolist() == [[1, 30 // block, 7 // block]]
    others = ~seen.isnan()
    assert torch.equal(seen[others], thumbs[others])


def test_a_row_that_reads_nothing_has_no_entropy_and_a_weaker_one_counts_as_scaled() -> None:
    ids = [5, 6, 5, 6]
    whole = torch.tensor([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0.25, 0.75, 0], [0.1, 0.2, 0.3, 0.4]])
    gone = whole.clone()
    gone[2] = 0
    gone[3] *= 0.5
    found, full = one(ids, gone.tolist()), one(ids, whole.tolist())
    rows = [-sum(p * math.log(p) for p in row if p) for row in whole.tolist()]
    assert full["entropy"] == pytest.approx(sum(rows) / 4, rel=1e-6)
    assert found["entropy"] == pytest.approx((rows[0] + rows[1] + rows[3]) / 3, rel=1e-6)
    assert found["distance"] == pytest.approx((0 + 0.5 + (0.3 + 0.4 + 0.3)) / 3, rel=1e-6)
    assert found["first"] == pytest.approx((1 + 0.5 + 0.05) / 2.5)
    nothing = one(ids, torch.zeros(4, 4).tolist())
    assert all(math.isnan(value) for value in nothing.values())


def test_an_encoders_head_may_read_ahead() -> None:
    ids = repetitive(11, seed=3).tolist()
    pattern = random_pattern(2, 11, causal=False)
    values, _, _ = scored(ids, pattern, causal=False, rows=4)
    cells = [(t, s) for t in range(11) for s in range(11)]
    wanted = {
        "previous": [(t, s) for t, s in cells if s == t - 1],
        "duplicate": [(t, s) for t, s in cells if s != t and ids[s] == ids[t]],
        "induction": [(t, s) for t, s in cells if s and s - 1 != t and ids[s - 1] == ids[t]],
        "current": [(t, t) for t in range(11)],
        "first": [(t, 0) for t in range(11)],
    }
    assert any(s > t for t, s in wanted["duplicate"])
    assert any(s > t for t, s in wanted["induction"])
    for head in range(2):
        for name, on in wanted.items():
            share = sum(float(pattern[head, t, s]) for t, s in on) / float(pattern[head].sum())
            assert float(values[name][head]) == pytest.approx(share, rel=1e-5)
        away = sum(float(pattern[head, t, s]) * abs(t - s) for t, s in cells) / 11
        assert float(values["distance"][head]) == pytest.approx(away, rel=1e-5)


# Row blocks and small patterns --------------------------------------------------------------------


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("rows", [1, 5, 24, 50])
def test_blocks_of_rows_of_any_size_give_the_same(rows: int, causal: bool) -> None:
    ids, pattern = repetitive(50).tolist(), random_pattern(3, 50, causal=causal)
    whole, thumbs, block = scored(ids, pattern, causal=causal)
    values, seen, same_block = scored(ids, pattern, causal=causal, rows=rows)
    assert same_block == block == 3
    assert torch.equal(seen, thumbs)
    for name in SCORES:
        assert torch.allclose(values[name], whole[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("length", "block", "side"), [(1, 1, 1), (24, 1, 24), (25, 2, 13), (50, 3, 17), (100, 5, 20)]
)
def test_a_pixel_is_the_largest_of_its_cells(length: int, block: int, side: int) -> None:
    pattern = random_pattern(2, length)
    _, thumbs, found = scored(range(length), pattern, rows=7)
    assert (found, thumbs.shape) == (block, (2, side, side))
    for head in range(2):
        for y in range(side):
            for x in range(side):
                cells = pattern[head, y * block : (y + 1) * block, x * block : (x + 1) * block]
                assert float(thumbs[head, y, x]) == float(cells.max())


# Beside TransformerLens ---------------------------------------------------------------------------


def layers_of(session: pc.Session) -> list[LayerScores]:
    def job(_: object) -> list[LayerScores]:
        return [found for _, found in scores(Attention(session.experiment))]

    found: list[LayerScores] = session.submit(job).result()
    return found


@pytest.mark.parametrize("name", MODELS)
def test_the_scores_are_transformer_lens_own(name: str) -> None:
    ids = repetitive(20, seed=1)
    found = layers_of(pc.Session(tiny.model(name), ids))
    bridge = tiny.fresh_bridge(name)
    told = SimpleNamespace(
        cfg=bridge.cfg, to_tokens=lambda _: ids[None], run_with_cache=bridge.run_with_cache
    )
    for ours, theirs in DETECTED.items():
        truth = detect_head(told, "", theirs, error_measure="mul")  # type: ignore[arg-type] # all it asks for
        values = torch.stack([layer.values[ours] for layer in found])
        assert values.shape == (4, 4)
        assert torch.allclose(values, truth.double(), rtol=1e-5)
        assert float(truth.min()) > 1e-4
        assert float(truth.std()) > 1e-3


def test_the_scores_are_of_the_pattern_under_the_stack() -> None:
    ids = repetitive(16, seed=2)
    plain = layers_of(pc.Session(tiny.model("llama"), ids))
    session = pc.Session(
        tiny.model("llama"), ids, interventions=[pc.Knockout("L2.H1[*<-0]"), pc.Scale("L0.mlp", 2)]
    )
    found = layers_of(session)
    assert float(found[2].values["first"][1]) == 0
    assert float(plain[2].values["first"][1]) > 0.01
    assert float(found[2].thumbs[1, :, 0].max()) == 0
    # The row of position 0 reads nothing now, and its entropy is no 0 in the mean.
    pattern = session.submit(lambda _: Attention(session.experiment).rows(2, 1)).result()
    rows = torch.special.entr(pattern[1:]).sum(-1)
    assert float(found[2].values["entropy"][1]) == pytest.approx(float(rows.mean()), rel=1e-5)


def test_an_encoder_is_scored_too() -> None:
    found = layers_of(pc.Session(tiny.model("bert"), repetitive(12)))
    assert len(found) == 3
    for layer in found:
        assert all(bool(value.isfinite().all()) for value in layer.values.values())
        assert float(layer.thumbs[:, 0, 5].min()) > 0


def test_scoring_stops_when_told_to() -> None:
    session = pc.Session(tiny.model("llama"), repetitive(12))

    def job(_: object) -> None:
        list(scores(Attention(session.experiment), should_stop=lambda: True))

    with pytest.raises(Stopped):
        session.submit(job).result()


# Repeated random tokens ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["neox", "llama", "bert"])
def test_induction_on_random_tokens_is_the_mean_weight_on_what_followed(name: str) -> None:
    model = tiny.model(name)
    session = pc.Session(model, tiny.ids(5))
    found = session.submit(lambda _: random_induction(session.engine, length=9, batch=3, seed=4))
    plain = tiny.hugging_face(name)
    plain.set_attn_implementation("eager")
    total = torch.zeros(model.anatomy.n_layers, model.anatomy.n_heads)
    for given in repeated_tokens(model, length=9, batch=3, seed=4):
        with torch.no_grad():
            out = plain(torch.tensor([given.ids]), output_attentions=True)
        start = int(given.has_bos)
        for layer, pattern in enumerate(out.attentions):
            for i in range(9):
                total[layer] += pattern[0, :, start + 9 + i, start + i + 1]
    assert torch.allclose(found.result(), total / 27, rtol=1e-5)
    assert float(total.std()) > 1e-2


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_random_tokens_come_twice_and_no_special_one_is_drawn(name: str) -> None:
    model = tiny.model(name)
    special = {model.bos_id, model.eos_id, getattr(model.bridge.cfg, "pad_token_id", None)}
    drawn = repeated_tokens(model, length=20, batch=30, seed=0)
    assert len({given.ids for given in drawn}) == 30
    for given in drawn:
        body = given.ids[1:] if given.has_bos else given.ids
        assert given.has_bos == (model.bos_id is not None)
        assert not given.has_bos or given.ids[0] == model.bos_id
        assert body[:20] == body[20:]
        assert len(set(body)) == 20
        assert not special & set(body)
    again = repeated_tokens(model, length=20, batch=30, seed=0)
    other = repeated_tokens(model, length=20, batch=30, seed=1)
    assert drawn == again != other


def test_random_tokens_that_do_not_fit_are_refused_with_the_most_that_do() -> None:
    model = tiny.model("llama")
    with pytest.raises(InputError, match="use at most 31"):
        repeated_tokens(model, length=40, batch=1, seed=0)
    assert repeated_tokens(model, length=31, batch=1, seed=0)
    with pytest.raises(InputError, match="2 or more, not 1"):
        repeated_tokens(model, length=1, batch=1, seed=0)
    with pytest.raises(InputError, match="not 0"):
        repeated_tokens(model, length=5, batch=0, seed=0)


# The effect of a head -----------------------------------------------------------------------------


def every_head(session: pc.Session, **options: Any) -> list[tuple[int, torch.Tensor]]:
    def job(_: object) -> list[tuple[int, torch.Tensor]]:
        measure = bind_to(session.experiment, session.metric)
        return list(head_effects(session.experiment, measure=measure, **options))

    found: list[tuple[int, torch.Tensor]] = session.submit(job).result()
    return found


@pytest.mark.parametrize("name", ["native", "llama"])
def test_a_heads_effect_is_that_of_a_run_of_its_own_above_the_stack(name: str) -> None:
    base = [
        pc.Scale("L1.mlp", 3.0),
        pc.Clamp("L0.N3", 5.0, muted=True),
        pc.Knockout("L2.H2"),
        pc.Scale("L3.H1", 5.0),  # ablated to its mean after this, not before
    ]
    session = pc.Session(tiny.model(name), tiny.ids(12), interventions=base)
    target = session.target
    steps = every_head(session)
    done, found = steps[-1]
    assert done == 16
    without = session.current.log_probs()[target]
    for layer in range(4):
        for head in range(4):
            stack = [*base, pc.Ablate(f"L{layer}.H{head}")]
            alone = pc.Session(tiny.model(name), tiny.ids(12), interventions=stack)
            truth = float(alone.current.log_probs()[target] - without)
            assert float(found[layer, head]) == pytest.approx(truth, abs=1e-5)
    assert float(found.abs().median()) > 1e-3
    counts = [count for count, _ in steps]
    assert counts == sorted(set(counts))
    for count, part in steps:
        assert int((~part.isnan()).sum()) == count
    assert list(session.interventions) == base


def test_heads_are_measured_in_batches_and_the_last_layer_first() -> None:
    session = pc.Session(tiny.model("llama"), tiny.ids(12))
    steps = every_head(session)
    assert len(steps) == 4  # a batch for each layer of four heads
    assert bool(steps[0][1][3].isfinite().all())
    assert bool(steps[0][1][:3].isnan().all())


def test_measuring_heads_stops_when_told_to() -> None:
    session = pc.Session(tiny.model("llama"), tiny.ids(12))
    with pytest.raises(Stopped):
        every_head(session, should_stop=lambda: True)


def test_the_effect_of_a_head_on_the_loss_is_of_all_positions() -> None:
    base = [pc.Scale("L1.mlp", 3.0), pc.Scale("L3.H1", 5.0)]
    session = pc.Session(tiny.model("llama"), tiny.ids(12), interventions=base, metric=Loss())
    done, found = every_head(session)[-1]
    assert done == 16

    def loss(*stack: pc.Intervention) -> float:
        alone = pc.Session(tiny.model("llama"), tiny.ids(12), interventions=stack)
        logits = alone.current.logits[:-1].double()
        return float(torch.nn.functional.cross_entropy(logits, tiny.ids(12)[1:]))

    without = loss(*base)
    for layer, head in ((0, 1), (1, 3), (3, 0)):
        effect = loss(*base, pc.Ablate(f"L{layer}.H{head}")) - without
        assert float(found[layer, head]) == pytest.approx(effect, abs=1e-5)
        assert abs(effect) > 1e-3


def test_a_metric_that_is_no_number_stops_the_measuring_of_heads_and_what_was_measured_stays() -> (
    None
):
    seen: list[torch.Tensor] = []

    def broken(logits: torch.Tensor) -> torch.Tensor:
        seen.append(logits)
        return logits[:, -1, 5] if len(seen) <= 2 else logits[:, -1, 5] / 0

    session = pc.Session(tiny.model("llama"), tiny.ids(12), metric=Custom(broken, "ratio"))
    kept: list[tuple[int, torch.Tensor]] = []

    def job(_: object) -> None:
        measure = bind_to(session.experiment, session.metric)
        kept.extend(step for step in head_effects(session.experiment, measure=measure))

    with pytest.raises(MetricError, match="'ratio' is infinite: the metric itself divides by zero"):
        session.submit(job).result()
    (step,) = kept
    assert step[0] == 4
    assert bool(step[1][3].isfinite().all())
