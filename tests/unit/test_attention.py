"""Attention of a run: rows made on demand, and knock-outs, against plain Hugging Face models."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from patchclamp import Ablate, Clamp, Knockout, Scale, Session
from patchclamp.engine.attention import Attention
from patchclamp.engine.attention_interface import RECORD, RecordedError, switched
from patchclamp.engine.hooks import Frame, compile_stack
from patchclamp.engine.surroundings import input_of
from patchclamp.errors import (
    AddressError,
    BudgetError,
    InterventionError,
    ModelError,
    PatchclampError,
    Stopped,
)
from patchclamp.interventions import KnockoutHow
from patchclamp.models.language_model import LanguageModel
from tests.unit import tiny
from tests.unit.test_engine import Counter, cut, error, intervention, session_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from patchclamp.interventions import Intervention

PLAIN = [
    "llama",
    "gpt2",
    "neox",
    "gemma2",
    "gemma3",
    "opt",
    "bert",
]  # what transformers computes itself
ALL = [*PLAIN, "gemma", "native"]
LENGTH = 12
EXACT = 1e-5
SEEN = 100 * EXACT


def attended(session: Session, job: Callable[[Attention], Any], budget: int | None = None) -> Any:
    """Do something with the attention of a session's current run, on the model's worker."""

    def run(_stop: object) -> Any:
        e = session.experiment
        return job(Attention(e) if budget is None else Attention(e, budget))

    return session.submit(run).result()


def patterns(session: Session) -> torch.Tensor:
    """Return Float[layer, head, dest, source]."""

    def job(attention: Attention) -> torch.Tensor:
        return torch.stack([attention.layer(layer) for layer in range(attention.n_layers)])

    found: torch.Tensor = attended(session, job)
    return found


def eager(name: str, ids: torch.Tensor) -> torch.Tensor:
    """Return Float[layer, head, dest, source] as a plain Hugging Face model says it."""
    model = tiny.hugging_face(name)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        found = model(ids[None], output_attentions=True, use_cache=False).attentions
    return torch.stack([layer[0] for layer in found])


# ------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("name", PLAIN)
def test_rows_are_what_hugging_face_says(name: str) -> None:
    session = Session(tiny.model(name), tiny.ids(LENGTH))
    truth = eager(name, session.ids)
    assert (patterns(session) - truth).abs().max() <= EXACT
    reasons = attended(session, lambda a: [a.reason(layer) for layer in range(a.n_layers)])
    assert reasons == [None] * len(truth), "the long way was taken"
    some = attended(session, lambda a: a.rows(1, 2, 3, 7))
    assert some.dtype is torch.float32
    assert (some - truth[1, 2, 3:7]).abs().max() <= EXACT
    last = attended(session, lambda a: a.rows(2, 3, LENGTH - 1))
    assert (last - truth[2, 3, -1:]).abs().max() <= EXACT
    assert (session.current.pattern("L2.H1") - truth[2, 1]).abs().max() <= EXACT
    assert (session.current.pattern("L2.H1@-1,3") - truth[2, 1, [3, -1]]).abs().max() <= EXACT


def test_a_window_of_attention_is_seen() -> None:
    """Gemma 3 here reads four positions back in most layers."""
    found = patterns(Session(tiny.model("gemma3"), tiny.ids(LENGTH)))
    windowed = [layer for layer in range(len(found)) if float(found[layer].tril(-4).sum()) == 0]
    assert windowed
    assert all((found[layer].tril(-3) > 0).any() for layer in windowed)


def test_an_encoder_reads_in_both_directions() -> None:
    session = Session(tiny.model("bert"), tiny.ids(LENGTH))
    found = patterns(session)
    assert float(found.triu(1).sum()) > 1
    assert torch.allclose(found.sum(-1), torch.ones(found.shape[:-1]), atol=1e-5)
    assert not attended(session, lambda a: a.causal)
    session.interventions = [Knockout("L1.H2[3<-7:9]")]
    rows = session.current.pattern("L1.H2")
    assert rows[3, 7:9].abs().max() == 0
    assert rows[4, 7:9].min() > 0
    # Rows asked for one by one have the knock-out where it is, though no row is the newest.
    one = attended(session, lambda a: a.rows(1, 2, 3, 4))
    assert torch.allclose(one[0], rows[3], rtol=1e-6)
    assert one[0, 7:9].abs().max() == 0


def hooked(session: Session) -> torch.Tensor:
    """Return the patterns of TransformerLens' own hooked pass under the session's stack."""
    name = session.model.name
    bridge = tiny.fresh_bridge(name)
    anatomy = session.model.anatomy
    frame = Frame(0, len(session.ids), session.has_bos)
    surroundings = session.experiment.surroundings
    steps = session.submit(
        lambda _: compile_stack(session.interventions, anatomy, surroundings)
    ).result()
    kept: dict[str, torch.Tensor] = {}

    def act(tensor: torch.Tensor, hook: object, step: Any) -> torch.Tensor | None:
        changed: torch.Tensor | None = step.apply(tensor, frame)
        return changed

    def keep(tensor: torch.Tensor, hook: Any) -> None:
        kept[hook.name] = tensor[0].clone()

    hooks: list[Any] = [(step.hook, partial(act, step=step)) for step in steps]
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(anatomy.n_layers)]
    hooks += [(hook, keep) for hook in names]
    with torch.no_grad(), tiny.shown_patterns(bridge):
        bridge.run_with_hooks(session.ids[None], fwd_hooks=hooks)
    return torch.stack([kept[hook] for hook in names])


@st.composite
def attended_to(draw: st.DrawFn) -> Intervention:
    """Draw what changes attention: inputs of heads, cells, or anything else."""
    layer = draw(st.integers(0, 2))
    head = f"L{layer}.H{draw(st.integers(0, 3))}"
    where = draw(st.sampled_from(["", "@3", "@-1", "@4:", "@all"]))
    match draw(st.integers(0, 4)):
        case 0:
            return Scale(f"{head}:{draw(st.sampled_from('qkv'))}{where}", 4.0)
        case 1:
            return Scale(f"L{layer}.resid_pre{where}", draw(st.sampled_from([0.25, -2.0])))
        case 2 | 3:
            low = draw(st.integers(0, 4))
            high = draw(st.integers(low + 1, LENGTH - 2))
            how = draw(st.sampled_from(get_args(KnockoutHow)))
            heads = draw(st.sampled_from([head, f"L[0:{layer + 1}].H*", f"L{layer}.H[1:3]"]))
            return Knockout(f"{heads}[{high}:{high + 2}<-{low}:{low + 2}]", how)
        case _:
            return draw(intervention())


@pytest.mark.parametrize("name", ALL)
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    derandomize=True,
    phases=[Phase.generate],
)
@given(data=st.data())
def test_rows_under_a_random_stack_are_those_of_the_plain_hooked_pass(
    name: str, data: st.DataObject
) -> None:
    stack: list[Intervention] = data.draw(st.lists(attended_to(), min_size=1, max_size=3))
    if name not in {"gemma2", "gemma3", "bert"} and data.draw(st.booleans()):
        stack.append(data.draw(cut()))
    session = (
        session_on(name)
        if name != "bert"
        else Session(tiny.model(name), tiny.ids(LENGTH), contrast=tiny.ids(LENGTH, seed=1))
    )
    try:
        session.interventions = stack
    except PatchclampError:  # BERT has three layers and no direction here
        assume(False)
    truth = hooked(session)
    assume(bool(truth.isfinite().all()))
    session.interventions = []
    assume((patterns(session) - truth).abs().max() >= SEEN)
    session.interventions = stack
    assert (patterns(session) - truth).abs().max() <= EXACT
    blocks = attended(session, lambda a: [list(a.chunks(layer)) for layer in range(a.n_layers)])
    for layer, found in enumerate(blocks):
        assert (torch.cat([rows for _, rows in found], 1) - truth[layer]).abs().max() <= EXACT
        assert (session.current.pattern(f"L{layer}.H1") - truth[layer, 1]).abs().max() <= EXACT


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "native"])
def test_values_and_the_last_residual_stream_are_the_runs(name: str) -> None:
    session = Session(tiny.model(name), tiny.ids(LENGTH))
    session.interventions = [Scale("L0.mlp", 2.0), Scale("L1.H1:v", 3.0)]
    anatomy = session.model.anatomy
    values = attended(session, lambda a: a.values(1))
    hook = anatomy.hooks[1]["head:v"]
    e = session.experiment
    kept = session.submit(lambda _: e.capture([hook])[hook]).result()
    assert values.shape == (anatomy.n_kv_heads, LENGTH, anatomy.d_head)
    assert torch.allclose(values.transpose(0, 1), kept, rtol=1e-5, atol=1e-6)
    final = attended(session, lambda a: a.final())
    last = f"L{anatomy.n_layers - 1}.resid_post"
    assert torch.allclose(final, session.current.activation(last), rtol=1e-5, atol=1e-6)


def test_only_the_block_of_a_layer_runs_and_only_once() -> None:
    session = Session(LanguageModel(tiny.hugging_face("llama"), None), tiny.ids(LENGTH))
    session.interventions = [Scale("L0.mlp", 2.0), Knockout("L2.H1[5<-2]")]
    session.current.compute()
    attended(session, lambda _: None)  # the short way is tried out once for a model
    counter = Counter(session.engine)

    def look(attention: Attention) -> None:
        for layer in (2, 0, 2):
            for head in range(4):
                attention.rows(layer, head, 3, 5)

    attended(session, look)
    # Each leaves its block when its queries and keys are there.
    assert [(layer, kind) for layer, kind, _ in counter.take()] == [(2, "plain"), (0, "plain")]
    counter.close()


def test_where_scores_are_edited_the_layer_is_taken_whole_and_it_is_said() -> None:
    session = session_on("llama", [Scale("L1.H1:q", 3.0), Knockout("L2.H1[5<-2]")])
    reasons = attended(session, lambda a: [a.reason(layer) for layer in range(4)])
    assert reasons == [None, "the stack edits blocks.1.attn.q.hook_out", None, None]
    said = attended(session_on("native"), lambda a: a.reason(0))
    assert said == "its attention is computed by code that hands nothing over"


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_patterns_of_several_inputs_leave_their_padding_out(name: str) -> None:
    session = Session(tiny.model(name), tiny.ids(LENGTH))
    hook = session.model.anatomy.hooks[1]["cell"]
    texts = [tiny.ids(LENGTH), tiny.ids(5, seed=1), tiny.ids(3, seed=2)]
    inputs = [input_of(session.model, ids) for ids in texts]
    found = session.submit(lambda _: session.engine.capture_many(inputs, [hook])).result()
    for ids, kept in zip(texts, found, strict=True):
        assert kept[hook].shape == (4, len(ids), len(ids))
        assert (kept[hook] - eager(name, ids)[1]).abs().max() <= EXACT


# ----------------------------------------------------------------------------------- bounds


def test_it_keeps_within_its_budget_and_is_right_nevertheless() -> None:
    session = session_on("gpt2", [Scale("L2.H1:q", 3.0)])
    truth = hooked(session)
    query = 4 * 4 * LENGTH * 8  # bytes of a layer's queries; its keys lie in the engine's store

    def look(attention: Attention) -> list[int]:
        held = []
        for layer in (0, 1, 3, 2, 0, 3, 1):
            found = attention.rows(layer, 1)
            assert (found - truth[layer, 1]).abs().max() <= EXACT
            held.append(attention.nbytes)
        return held

    whole = attended(session, look)
    assert whole[:3] == [query, 2 * query, 3 * query]
    budget = 4 * 4 * LENGTH**2 + query
    held = attended(session, look, budget)
    assert max(held) <= budget < max(whole)


@pytest.mark.parametrize(("name", "at"), [("llama", "ask for some of its rows"), ("native", "use")])
def test_more_than_the_budget_is_refused_with_the_number(name: str, at: str) -> None:
    session = session_on(name)
    with pytest.raises(BudgetError, match=r"layer 1 takes 0 MiB, and the budget is 0 MiB") as told:
        attended(session, lambda a: a.layer(1), 1000)
    assert at in str(told.value)


def test_the_contrast_inputs_attention_is_refused_beyond_the_budget() -> None:
    model = LanguageModel(tiny.hugging_face("llama"), None)
    session = Session(model, tiny.ids(LENGTH), contrast=tiny.ids(LENGTH, seed=1))
    session.interventions = [Knockout("L*.H*[5<-2]", "contrast")]
    session.engine.budget = 5000
    with pytest.raises(BudgetError, match="attention of 16 heads takes"):
        session.current.compute()


def test_chunks_stop_when_told() -> None:
    session = session_on("llama")
    with pytest.raises(Stopped):
        attended(session, lambda a: list(a.chunks(0, lambda: True)))


def test_a_long_input_comes_in_blocks_of_rows() -> None:
    config = tiny.hugging_face("llama").config
    config.max_position_embeddings = 1500
    torch.manual_seed(0)
    model = LanguageModel(type(tiny.hugging_face("llama"))(config).eval(), None)
    session = Session(model, torch.randint(3, tiny.VOCAB, (1400,)))

    def job(attention: Attention) -> list[tuple[int, torch.Size]]:
        blocks = []
        for start, rows in attention.chunks(1):
            stop = start + rows.shape[1]
            assert torch.equal(rows[2], attention.rows(1, 2, start, stop))
            assert torch.allclose(rows.sum(-1), torch.ones(rows.shape[:2]), atol=1e-4)
            blocks.append((start, rows.shape))
        return blocks

    blocks = attended(session, job)
    assert len(blocks) > 1
    assert blocks[-1][0] + blocks[-1][1][1] == 1400
    assert all(4 * shape.numel() <= 2**24 for _, shape in blocks)


# ------------------------------------------------------------------------------------- care


def test_what_is_not_a_number_stays_so() -> None:
    session = session_on("llama", [Scale("L0.resid_post@3", 3e38), Scale("L0.resid_post@3", 3e38)])
    rows = session.current.pattern("L2.H1")
    assert rows[3, :4].isnan().all()
    assert not (rows[3, :4] == 0).any()


@pytest.mark.parametrize("name", ["llama", "opt", "gemma3"])
def test_the_users_model_and_its_configuration_stay_as_they_are(name: str) -> None:
    theirs = tiny.hugging_face(name)
    model = LanguageModel(theirs, None)
    mine = model.bridge.original_model

    def settings_of(module: torch.nn.Module) -> list[Any]:
        configs: list[Any] = [getattr(part, "config", None) for part in module.modules()]
        return [
            (c.to_dict(), c._attn_implementation)
            for c in configs
            if hasattr(c, "_attn_implementation")
        ]

    before = [settings_of(theirs), settings_of(mine)]
    weights = [p.clone() for p in theirs.parameters()]
    hooks = [len(point.fwd_hooks) for point in model.bridge.hook_dict.values()]
    session = Session(model, tiny.ids(LENGTH), contrast=tiny.ids(LENGTH, seed=1))
    session.interventions = [Knockout("L1.H1[5<-2]"), Knockout("L2.H*[5<-2]", "contrast")]
    session.current.compute()
    patterns(session)
    twins = [shell.root for shell in session.engine.passes.shells.values()]

    def fails(attention: Attention) -> None:
        attention._passes.scores(tuple(session.ids.tolist()), 1, torch.zeros(LENGTH, 3))

    with pytest.raises(RuntimeError):  # a residual stream of the wrong width
        attended(session, fails)
    assert [settings_of(theirs), settings_of(mine)] == before
    for twin in twins:
        assert {said for _, said in settings_of(twin)} == {said for _, said in before[1]}
    assert all(torch.equal(a, b) for a, b in zip(weights, theirs.parameters(), strict=True))
    # OPT's MLP is no module: TransformerLens fires its hook points from its parts', and so do we.
    for bridge in (model.bridge, session.engine.passes.bridge):
        assert [len(point.fwd_hooks) for point in bridge.hook_dict.values()] == hooks


def test_attention_that_takes_more_than_is_known_here_is_not_guessed() -> None:
    with switched(tiny.hugging_face("llama"), RECORD):
        record = AttentionInterface()[RECORD]
    q = torch.zeros(1, 2, 3, 4)
    with pytest.raises(RecordedError) as told:
        record(torch.nn.Identity(), q, q, q, None, scaling=1.0, s_aux=torch.zeros(2))
    assert told.value.scores is None
    assert "s_aux" in told.value.reason
    with pytest.raises(RecordedError) as told:
        record(
            torch.nn.Identity(), q, q, q, None, scaling=1.0, sliding_window=4, position_bias=None
        )
    assert told.value.scores is not None


def test_changed_weights_are_noticed() -> None:
    model = LanguageModel(tiny.hugging_face("gpt2"), None)
    session = Session(model, tiny.ids(LENGTH))
    kept = attended(session, lambda a: (a, a.rows(2, 1))[0])
    before = session.current.pattern("L2.H1")
    with torch.no_grad():
        model.bridge.blocks[1].mlp.out.original_component.weight.mul_(0.5)
    assert session.submit(lambda _: kept.outdated).result()
    with pytest.raises(ModelError, match="weights have changed"):
        session.submit(lambda _: kept.rows(2, 1)).result()
    assert (session.current.pattern("L2.H1") - before).abs().max() >= SEEN


def test_what_does_not_exist_is_said() -> None:
    session = session_on("llama")
    for call, sentence in (
        (lambda a: a.rows(4, 0), "L4.H0 does not exist"),
        (lambda a: a.rows(0, 9), "L0.H9 does not exist"),
        (lambda a: a.rows(0, 0, 5, 5), "no rows 5:5"),
        (lambda a: a.rows(0, 0, 0, 99), "12 positions"),
    ):
        with pytest.raises(AddressError, match=sentence):
            attended(session, call)
    for head, sentence in (
        ("L1.mlp", "is no head"),
        ("L1.H1:q", "is no head"),
        ("L9.H1", "layer 9 does not exist"),
        ("L1.H1@99", "out of range"),
    ):
        with pytest.raises(AddressError, match=sentence):
            session.current.pattern(head)


# --------------------------------------------------------------------------------- knock-outs

# Within Gemma 3's window of four positions.
CELLS = ["L1.H2[7<-5:7]", "L[0:2].H*[6:9<-4:6]", "{L2.H1[-1<-9:11], L2.H3[10<-8]}"]


class ByHand:
    """Attention written out, with cells taken away; nothing of patchclamp is in it."""

    def __init__(self, model: LanguageModel, sites: Sequence[str], how: str) -> None:
        self.how = how
        self.other: torch.Tensor | None = None
        anatomy = model.anatomy
        self.out = torch.zeros(anatomy.n_layers, anatomy.n_heads, LENGTH, LENGTH, dtype=torch.bool)
        for text in sites:
            for site in anatomy.expand(anatomy.parse(text)):
                assert site.cell is not None
                rows, columns = (
                    slice(*end) if isinstance(end, tuple) else [end] for end in site.cell
                )
                block = torch.zeros(LENGTH, LENGTH, dtype=torch.bool)
                block[rows, columns] = True
                self.out[site.layer or 0, site.index or 0] |= block

    def __call__(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        layer, heads = module.layer_idx, query.shape[1]
        key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
        scores = torch.einsum("bhqd,bhkd->bhqk", query, key) * kwargs["scaling"]
        if kwargs.get("softcap") is not None:
            scores = (scores / kwargs["softcap"]).tanh() * kwargs["softcap"]
        if attention_mask is not None:
            scores = scores + attention_mask
        out = self.out[layer]
        if self.how == "renormalise":
            scores = scores.masked_fill(out, -torch.inf)
        pattern = scores.softmax(-1)
        if self.how == "zero":
            pattern = pattern * ~out
        if self.how == "contrast":
            assert self.other is not None
            pattern = torch.where(out, self.other[layer], pattern)
        return torch.einsum("bhqk,bhkd->bqhd", pattern, value).contiguous(), None


@pytest.fixture
def interface() -> Iterator[Callable[[ByHand], str]]:
    name = "written_by_hand"

    def register(function: ByHand) -> str:
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, eager_mask)
        return name

    yield register
    AttentionInterface._global_mapping.pop(name, None)
    AttentionMaskInterface._global_mapping.pop(name, None)


@pytest.mark.parametrize("how", get_args(KnockoutHow))
@pytest.mark.parametrize("name", PLAIN)
def test_a_knockout_is_the_edit_written_by_hand_on_a_plain_model(
    name: str, how: KnockoutHow, interface: Callable[[ByHand], str]
) -> None:
    ids, other = tiny.ids(LENGTH), tiny.ids(LENGTH, seed=1)
    session = Session(tiny.model(name), ids, contrast=other)
    for cells in ([one] for one in CELLS), [CELLS]:
        for sites in cells:
            by_hand = ByHand(session.model, sites, how)
            by_hand.other = eager(name, other)
            plain = tiny.hugging_face(name)
            plain.set_attn_implementation(interface(by_hand))
            with torch.no_grad():
                truth = plain(ids[None], use_cache=False).logits[0]
            session.interventions = [Knockout(site, how) for site in sites]
            assert error(session.baseline.logits, truth) >= SEEN, (sites, "no effect to see")
            assert error(session.current.logits, truth) <= EXACT, sites
            # The last row alone, on the keys and values of the run before.
            assert error(session.current.rows([-1]), truth, row=-1) <= EXACT


@pytest.mark.parametrize("name", ["opt", "bert", "llama"])
def test_knockouts_go_with_clamps_and_sweeps(name: str) -> None:
    session = Session(tiny.model(name), tiny.ids(LENGTH))
    knocked = Knockout("L1.H[0:3][6:9<-1:4]")
    clamped, ablated = Clamp("L0.N3", 6.0), Ablate("L2.H1", how="zero")
    stacks = [(knocked,), (clamped, knocked), (knocked, ablated), (clamped,)]
    e = session.experiment
    chunks = session.submit(lambda stop: list(e.sweep(stacks, (5, -1), stop))).result()
    swept = torch.cat([logits for _, logits in chunks])
    for stack, logits in zip(stacks, swept, strict=True):
        session.interventions = stack
        assert error(session.baseline.rows([5, -1]), session.current.rows([5, -1])) >= SEEN
        assert error(logits, session.current.rows([5, -1])) <= EXACT


@pytest.mark.parametrize("name", ["opt", "llama"])
def test_generation_keeps_a_knockout(name: str) -> None:
    from patchclamp.engine.generate import generate

    session = Session(tiny.model(name), tiny.ids(LENGTH), contrast=tiny.ids(LENGTH, seed=1))
    session.interventions = [
        Knockout("L*.H[0:2][*<-2:9]"),
        Knockout("L1.H3", "contrast"),
    ]
    sides = {"clamped": session.experiment}

    def texts(*, use_cache: bool) -> list[int]:
        options: dict[str, Any] = {"count": 12, "seed": 0, "temperature": 0.0}

        def job(stop: Any) -> list[int]:
            found = generate(sides, use_cache=use_cache, should_stop=stop, **options)
            return [token.id for token in found]

        result: list[int] = session.submit(job).result()
        return result

    assert texts(use_cache=True) == texts(use_cache=False)


def test_the_contrast_input_has_to_be_there_and_long_enough() -> None:
    session = Session(tiny.model("llama"), tiny.ids(LENGTH))
    with pytest.raises(InterventionError, match="no contrast input"):
        session.interventions = [Knockout("L1.H1[5<-2]", "contrast")]
    session.contrast = tiny.ids(6, seed=1)
    session.interventions = [Knockout("L1.H1[5<-*]", "contrast")]
    assert error(session.baseline.logits, session.current.logits) >= SEEN
    for cells in ("L1.H1[6<-2]", "L1.H1[*<-2]", "L1.H1", "L1.H*[4:7<-2]"):
        with pytest.raises(InterventionError, match="has only 6 positions"):
            session.interventions = [Knockout(cells, "contrast")]


def test_a_whole_head_on_the_contrast_input_is_its_pattern_there() -> None:
    session = Session(tiny.model("gpt2"), tiny.ids(LENGTH), contrast=tiny.ids(LENGTH, seed=1))
    other = Session(tiny.model("gpt2"), tiny.ids(LENGTH, seed=1)).baseline.pattern("L1.H1")
    session.interventions = [Knockout("L1.H1@all", "contrast")]
    assert torch.allclose(session.current.pattern("L1.H1"), other, atol=1e-6)
    assert not torch.allclose(session.baseline.pattern("L1.H1"), other, atol=1e-2)
    # A longer contrast input is taken as far as the prompt goes.
    session.contrast = tiny.ids(LENGTH + 5, seed=1)
    assert torch.allclose(
        session.current.pattern("L1.H1"),
        eager("gpt2", tiny.ids(LENGTH + 5, seed=1))[1, 1, :LENGTH, :LENGTH],
        atol=1e-5,
    )
