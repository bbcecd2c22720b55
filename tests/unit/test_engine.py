"""The engine equals the plain TransformerLens hooked pass, and computes less than it."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from patchclamp import Ablate, Add, Clamp, Cut, Knockout, Patch, Scale, Session
from patchclamp.engine.hooks import Frame, Step, compile_stack
from patchclamp.errors import BudgetError, InterventionError, Stopped
from patchclamp.interventions import CutHow, KnockoutHow
from patchclamp.models.language_model import LanguageModel
from tests.unit import tiny
from tests.unit.heard import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patchclamp.engine.engine import Engine
    from patchclamp.interventions import Intervention

ARCHITECTURES = ["native", "gpt2", "llama", "neox", "gemma", "gemma3", "opt"]
LENGTH = 12
EXACT = 1e-5
SEEN = 100 * EXACT


def plain(session: Session, ids: torch.Tensor | None = None) -> torch.Tensor:
    """Run the stack with TransformerLens' own hooked pass, on the bridge that no engine hooks."""
    ids = session.ids if ids is None else ids
    bridge = session.model.bridge
    frame = Frame(0, len(session.ids), session.has_bos)
    surroundings = session.experiment.surroundings
    steps = session.submit(
        lambda _: compile_stack(session.interventions, session.model.anatomy, surroundings)
    ).result()

    def act(tensor: torch.Tensor, hook: object, step: Step) -> torch.Tensor | None:
        return step.apply(tensor, frame)

    hooks: list[Any] = [(step.hook, partial(act, step=step)) for step in steps]
    shown: AbstractContextManager[None] = nullcontext()
    if session.model.anatomy.delegated:
        # There the bridge's own hook does nothing, so that a knock-out needs another bridge.
        bridge = tiny.fresh_bridge(session.model.name)
        shown = tiny.shown_patterns(bridge)
    with torch.no_grad(), shown:
        logits: torch.Tensor = bridge.run_with_hooks(ids.unsqueeze(0), fwd_hooks=hooks)[0]
    return logits


def error(found: torch.Tensor, truth: torch.Tensor, row: int | None = None) -> float:
    """Return the largest difference (in one row, if given) as a share of the largest logit."""
    difference = (found - truth) if row is None else (found - truth[row])
    return float(difference.abs().max() / truth.abs().max())


POSITIONS = st.sampled_from(["", "@0", "@3", "@-1", "@6", "@2:5", "@4:", "@all", "@1,7,-1"])
LAYER = st.integers(0, 3)
NUMBER = st.sampled_from([-6.0, -2.0, 0.0, 3.0, 8.0])
HOW: st.SearchStrategy[Literal["mean", "zero", "resample"]] = st.sampled_from(
    ["mean", "zero", "resample"]
)
KNOCKED_OUT: st.SearchStrategy[KnockoutHow] = st.sampled_from(get_args(KnockoutHow))
CUT: st.SearchStrategy[CutHow] = st.sampled_from(get_args(CutHow))


@st.composite
def intervention(draw: st.DrawFn) -> Intervention:  # noqa: PLR0911 (one return an operation)
    """Draw any operation at any site that every tested architecture has."""
    layer, where = draw(LAYER), draw(POSITIONS)
    neuron = f"L{layer}.N{draw(st.integers(0, 47))}{where}"
    head = f"L{layer}.H{draw(st.integers(0, 3))}"
    part = draw(st.sampled_from([f"L{layer}.mlp", f"L{layer}.attn", f"L{layer}.resid_post"]))
    match draw(st.integers(0, 8)):
        case 0:
            return Clamp(neuron, draw(NUMBER))
        case 1:
            return Add(neuron, draw(NUMBER))
        case 2:
            return Scale(part + where, draw(st.sampled_from([0.0, 0.5, 2.0])))
        case 3:
            return Ablate(head + where, how=draw(HOW), seed=draw(st.integers(0, 3)))
        case 4:
            return Ablate(part + where, how=draw(HOW))
        case 5:
            return Patch(head + where, source="contrast")
        case 6:
            low = draw(st.integers(0, LENGTH - 1))
            high = draw(st.integers(low, LENGTH - 1))
            how = draw(KNOCKED_OUT)
            heads = draw(st.sampled_from([head, f"L[0:{layer + 1}].H*"]))
            ranges = [f"{high}<-{low}", f"{high}:{LENGTH}<-{low}:{high + 1}", f"*<-{low}"]
            several = draw(st.sampled_from(ranges))
            return Knockout(f"{heads}[{several}]", how=how)
        case 7:
            return Clamp(f"L{layer}.resid_post[up]{where}", draw(NUMBER))
        case _:
            direction = torch.randn(32, generator=torch.Generator().manual_seed(layer)).tolist()
            return Add(part + where, draw(NUMBER) / 4, direction=direction)


@st.composite
def cut(draw: st.DrawFn) -> Intervention:
    """Draw a cut edge between two layers."""
    first = draw(st.integers(0, 2))
    last = draw(st.integers(first + 1, 3))
    end = draw(st.sampled_from([f"L{last}.H1:q", f"L{last}.H2:v", f"L{last}.mlp", "logits"]))
    start = draw(st.sampled_from([f"L{first}.H0", f"L{first}.mlp", "embed"]))
    return Cut(f"{start}->{end}", how=draw(CUT))


def session_on(name: str, stack: Sequence[Intervention] = ()) -> Session:
    """Make a session with a contrast input and a direction."""
    ids = tiny.ids(LENGTH)
    session = Session(tiny.model(name), ids, contrast=tiny.ids(LENGTH, seed=1))
    session.define("up", "L0.resid_post", torch.linspace(-1, 1, 32))
    for layer in range(1, 4):
        session.define("up", f"L{layer}.resid_post", torch.linspace(-1, 1, 32))
    session.interventions = stack
    return session


@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    phases=[Phase.generate],
)
@given(data=st.data())
def test_a_random_stack_gives_what_the_plain_hooked_pass_gives(
    name: str, data: st.DataObject
) -> None:
    stack = data.draw(st.lists(intervention(), min_size=1, max_size=4))
    if name != "gemma3" and data.draw(st.booleans()):  # norms after the components: no edges there
        stack.append(data.draw(cut()))
    session = session_on(name, stack)
    truth = plain(session)
    assume(truth.abs().max() > 0)
    assume(error(session.baseline.logits, truth) >= SEEN)
    found = session.current
    assert error(found.logits, truth) <= EXACT
    # Change the last one: the engine builds on what it has just computed.
    changed = data.draw(intervention())
    session.interventions = [*stack[:-1], changed]
    truth = plain(session)
    assume(truth.abs().max() > 0)
    assume(error(session.baseline.logits, truth) >= SEEN)
    assert error(session.current.rows([-1]), truth, row=-1) <= EXACT
    assert error(session.current.logits, truth) <= EXACT


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_sweep_gives_what_single_runs_give(name: str) -> None:
    session = session_on(name, [Clamp("L1.N3@4:", 1.0), Ablate("L3.H1", how="zero")])
    stacks = [
        (Clamp("L1.N3@4:", value), Ablate("L3.H1", how="zero"), *extra)
        for value in (-4.0, 0.0, 9.0)
        for extra in ((), (Scale("L2.mlp@-1", 3.0),), (Knockout("L2.H0[7<-2]"),))
    ]
    rows = [3, 5, LENGTH - 1]
    session.current.compute()
    chunks = session.submit(
        lambda stop: list(session.experiment.sweep(stacks, rows, stop))
    ).result()
    found = torch.cat([logits for _, logits in chunks])
    for logits, stack in zip(found, stacks, strict=True):
        session.interventions = stack
        truth = plain(session)[rows]
        assert error(session.baseline.logits[rows], truth) >= SEEN
        assert error(logits, truth) <= EXACT


class Counter:
    """Counts the calls of real blocks, and the positions that they computed."""

    def __init__(self, engine: Engine) -> None:
        engine.queue.submit(lambda _: engine.shortcuts).result()
        self.calls: list[tuple[int, str, int]] = []
        self._handles = [
            block.register_forward_pre_hook(self._seen(layer, kind), with_kwargs=True)
            for kind, shell in engine.passes.shells.items()
            for layer, block in enumerate(shell.blocks)
        ]

    def _seen(self, layer: int, kind: str) -> Any:
        def hook(_block: object, args: tuple[torch.Tensor, ...], _kwargs: object) -> None:
            self.calls.append((layer, kind, args[0].shape[0] * args[0].shape[1]))

        return hook

    def take(self) -> list[tuple[int, str, int]]:
        """Return the calls since the last look."""
        calls, self.calls = self.calls, []
        return calls

    def close(self) -> None:
        """Stop counting."""
        for handle in self._handles:
            handle.remove()


@pytest.fixture
def counted() -> Iterator[tuple[Session, Counter]]:
    session = Session(
        LanguageModel(tiny.hugging_face("llama"), None, name="llama"), tiny.ids(LENGTH)
    )
    counter = Counter(session.engine)
    yield session, counter
    counter.close()


def test_only_what_can_have_changed_is_computed(counted: tuple[Session, Counter]) -> None:
    session, counter = counted
    counter.take()
    session.baseline.compute()
    assert counter.take() == [(layer, "plain", LENGTH) for layer in range(4)]
    session.interventions = [Clamp("L2.N3@-1", 5.0)]
    session.current.compute()
    assert counter.take() == [(2, "hooked", 1), (3, "plain", 1)]
    session.interventions = [Clamp("L2.N3@7:", 5.0)]
    session.current.compute()
    assert counter.take() == [(2, "hooked", LENGTH - 7), (3, "plain", LENGTH - 7)]
    session.interventions = [Clamp("L2.N3@7:", 5.0), Clamp("L3.N1@-1", 1.0)]
    session.current.compute()
    assert counter.take() == [(3, "hooked", 1)]
    session.interventions = [Clamp("L2.N3@7:", 5.0), Clamp("L3.N1@-1", 2.0)]
    session.current.compute()
    assert counter.take() == [(3, "hooked", 1)]
    session.undo()
    session.current.compute()
    assert counter.take() == []
    session.interventions = [Clamp("L0.N0@new", 2.0)]
    session.current.compute()
    assert counter.take() == []


def test_a_sweep_starts_where_its_stacks_differ_and_runs_as_a_batch(
    counted: tuple[Session, Counter],
) -> None:
    session, counter = counted
    session.interventions = [Clamp("L1.N3@4:", 1.0)]
    session.current.compute()
    counter.take()
    stacks = [(Clamp("L1.N3@4:", 1.0), Clamp("L3.N5@-2:", float(v))) for v in range(6)]
    session.submit(lambda stop: list(session.experiment.sweep(stacks, (-1,), stop))).result()
    assert counter.take() == [(3, "hooked", 6 * 2)]


def test_the_plain_way_computes_everything(counted: tuple[Session, Counter]) -> None:
    session, counter = counted
    session.baseline.compute()
    counter.take()
    e = session.experiment.under((Clamp("L2.N3@-1", 5.0),))
    outcome = session.submit(
        lambda _: session.engine.run(e.given, e.stack, e.surroundings, shortcuts=False)
    ).result()
    assert counter.take() == [(layer, "hooked", LENGTH) for layer in range(4)]
    session.interventions = e.stack
    assert error(session.current.rows([-1]), outcome.logits) <= EXACT


def test_a_run_stops_before_the_next_block(counted: tuple[Session, Counter]) -> None:
    session, counter = counted
    session.baseline.compute()
    counter.take()
    asked = iter([False, False, True])
    session.interventions = [Clamp("L0.N3@-1", 5.0)]
    with pytest.raises(Stopped):
        session.current.compute(should_stop=lambda: next(asked))
    assert [layer for layer, *_ in counter.take()] == [0, 1]
    session.current.compute()
    assert [layer for layer, *_ in counter.take()] == [0, 1, 2, 3]


def test_no_hook_is_left_on_any_twin_and_none_is_ever_put_on_the_users_model() -> None:
    model = LanguageModel(tiny.native(), None, name="native")
    session = Session(model, tiny.ids(LENGTH))
    seen: list[int] = []

    def count(bridge: Any) -> int:
        return sum(
            len(point.fwd_hooks) + len(point._forward_hooks) for point in bridge.hook_dict.values()
        )

    class BrokenError(RuntimeError):
        pass

    def stop() -> bool:
        seen.append(count(model.bridge))
        if len(seen) > 2:
            raise BrokenError
        return False

    session.interventions = [Clamp("L0.N3", 5.0), Ablate("L2.H1", how="zero")]
    with pytest.raises(BrokenError):
        session.current.compute(should_stop=stop)
    assert seen == [0, 0, 0]
    assert count(session.engine.passes.bridge) == 0
    assert error(session.current.logits, plain(session)) <= EXACT
    assert count(session.engine.passes.bridge) == 0
    assert count(model.bridge) == 0


def test_the_users_own_calls_are_right_while_the_worker_sweeps() -> None:
    model = LanguageModel(tiny.native(), None, name="native")
    session = Session(model, tiny.ids(LENGTH))
    session.baseline.compute()
    ids = session.ids.unsqueeze(0)
    with torch.no_grad():
        truth = model.bridge(ids)
    chunks = []
    stacks = [(Clamp("L0.N3", float(v)), Ablate("L2.H1", how="zero")) for v in range(64)]

    def sweep(stop: Any) -> Iterator[None]:
        while not stop():
            for _, logits in session.experiment.sweep(stacks, (-1,), stop):
                chunks.append(logits)
                yield

    task = session.submit(sweep, priority="sweep")
    wrong = 0
    passes = 0

    def passed_while_it_swept() -> bool:
        nonlocal passes, wrong
        passes += 1
        with torch.no_grad():
            wrong += not torch.equal(model.bridge(ids), truth)
        return passes >= 200 and len(chunks) > 2

    until(passed_while_it_swept)
    task.cancel()
    assert wrong == 0
    assert error(chunks[0][0, -1:], truth[0, -1:]) >= SEEN


def test_the_users_reset_hooks_and_own_hooks_do_not_reach_a_run() -> None:
    model = LanguageModel(tiny.native(), None, name="native")
    session = Session(model, tiny.ids(LENGTH))
    truth = session.baseline.logits
    model.bridge.add_hook("blocks.0.hook_mlp_out", lambda tensor, **_: tensor * 0)
    fresh = Session(LanguageModel(model.bridge, None, name="native"), tiny.ids(LENGTH))
    assert torch.equal(fresh.baseline.logits, truth)
    assert len(model.bridge.hook_dict["blocks.0.mlp.hook_out"].fwd_hooks) == 1
    model.bridge.reset_hooks()


def test_an_update_of_the_weights_is_noticed() -> None:
    model = LanguageModel(tiny.hugging_face("gpt2"), None, name="gpt2")
    session = Session(model, tiny.ids(LENGTH), interventions=[Clamp("L1.N3", 4.0)])
    before = session.current.logits
    with torch.no_grad():
        model.bridge.blocks[1].mlp.out.original_component.weight.mul_(0.5)
        truth = model.bridge(session.ids.unsqueeze(0))[0]
    assert error(session.baseline.logits, truth) <= EXACT
    assert error(session.current.logits, before) >= SEEN


@pytest.mark.parametrize("name", ["llama", "native", "gemma3"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generation_with_keys_and_values_equals_generation_without(
    name: str, temperature: float
) -> None:
    from patchclamp.engine.generate import generate

    session = session_on(
        name,
        [
            Clamp("L1.N3", 6.0),
            Add("L2.N5@new", 4.0),
            Clamp("L0.N7@-1", 9.0),
            Scale("L2.mlp@2:5", 2.0),
            Knockout("L2.H0[*<-2]"),
        ],
    )
    sides = {"baseline": session.experiment.under(()), "clamped": session.experiment}

    def texts(*, use_cache: bool) -> dict[str, list[int]]:
        def job(stop: Any) -> dict[str, list[int]]:
            found: dict[str, list[int]] = {side: [] for side in sides}
            options = {"count": 20, "seed": 3, "temperature": temperature, "should_stop": stop}
            for token in generate(sides, use_cache=use_cache, **options):
                found[token.side].append(token.id)
            return found

        result: dict[str, list[int]] = session.submit(job).result()
        return result

    cached, uncached = texts(use_cache=True), texts(use_cache=False)
    assert cached == uncached
    assert cached["baseline"] != cached["clamped"]
    if temperature == 0:  # and both equal TransformerLens' own pass over the whole text
        ids = session.ids
        for token in cached["clamped"]:
            assert int(plain(session, ids)[-1].argmax()) == token
            ids = torch.cat([ids, torch.tensor([token])])


def test_activations_are_those_of_run_with_cache() -> None:
    session = session_on("gpt2", [Scale("L0.mlp", 2.0)])
    with torch.no_grad():
        _, cache = tiny.fresh_bridge("gpt2").run_with_cache(session.ids.unsqueeze(0))
    truth = cache["blocks.2.mlp.hook_post"][0, :, 5]
    found = session.baseline.activation("L2.N5")
    assert torch.allclose(found, truth, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(session.current.activation("L2.N5"), truth, rtol=1e-2)
    assert torch.equal(session.baseline.activation("L2.N5@3:5"), found[3:5])
    assert session.baseline.activation("L1.H2").shape == (LENGTH, 8)


def test_reading_logits_waits_for_no_other_runs_reader() -> None:
    mine = session_on("llama")
    other = session_on("llama", [Scale("L1.mlp", 2.0)])
    waiting = threading.Event()

    def job(_stop: object) -> torch.Tensor:
        waiting.wait()
        until(lambda: mine.engine.queue._waiting)  # the other thread waits for the worker
        return other.baseline.logits

    task = mine.submit(job)

    def read() -> None:
        waiting.set()
        assert mine.current.logits.isfinite().all()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(PATIENCE)
    assert not reader.is_alive()
    assert torch.equal(task.result(), mine.current.logits)


def test_gradients_are_those_of_a_small_change() -> None:
    session = session_on("llama", [Scale("L0.mlp", 2.0)])
    e = session.experiment
    hook = session.model.anatomy.hooks[1]["neuron:post"]
    values, grads = session.submit(
        lambda stop: e.gradients([hook], lambda logits: logits.double().log_softmax(-1)[0, 7], stop)
    ).result()[hook]
    for neuron in (0, 5, 40):
        step = 0.05
        found = []
        for sign in (-1, 1):
            session.interventions = [*e.stack, Add(f"L1.N{neuron}@4", sign * step)]
            found.append(float(session.current.log_probs()[7]))
        slope = (found[1] - found[0]) / (2 * step)
        assert slope == pytest.approx(float(grads[4, neuron]), rel=0.05, abs=2e-5)
    assert values.shape == grads.shape == (LENGTH, 48)
    assert all(p.grad is None for p in session.model.bridge.parameters())


def test_an_encoder_runs_with_what_holds_for_it() -> None:
    session = Session(tiny.model("bert"), tiny.ids(LENGTH))
    session.interventions = [Clamp("L1.N3@5", 8.0)]
    truth = plain(session)
    assert error(session.baseline.logits, truth) >= SEEN
    assert error(session.current.logits, truth) <= EXACT
    assert session.current.work.first_layer == 1
    assert session.current.work.positions == LENGTH
    assert any("every position sees every other" in r for r in session.engine.shortcuts.reasons)


def test_the_store_keeps_within_its_budget() -> None:
    session = Session(LanguageModel(tiny.hugging_face("llama"), None), tiny.ids(LENGTH))
    session.baseline.compute()
    one = session.engine.store.nbytes
    session.engine.store.budget = 3 * one
    for value in range(20):
        session.interventions = [Clamp("L0.N3@0", float(value))]
        session.current.compute()
        assert session.engine.store.nbytes <= 3 * one
    assert len(session.engine.store) >= 2


def test_a_sweep_over_the_budget_is_refused_with_the_number() -> None:
    session = Session(LanguageModel(tiny.hugging_face("llama"), None), tiny.ids(LENGTH))
    session.baseline.compute()
    session.engine.budget = 1000
    with pytest.raises(BudgetError, match="MiB"):
        session.submit(lambda _: list(session.experiment.sweep([(Clamp("L0.N3", 1.0),)]))).result()


def test_a_site_that_never_fires_is_an_error() -> None:
    session = Session(tiny.model("llama"), tiny.ids(LENGTH))
    e = session.experiment
    with pytest.raises(InterventionError, match="never passes through"):
        session.submit(lambda _: e.capture(["blocks.1.attn.hook_hidden_states"])).result()


def test_interactive_work_goes_between_the_chunks_of_a_sweep() -> None:
    session = Session(tiny.model("llama"), tiny.ids(LENGTH))
    order: list[str] = []
    started, queued = threading.Event(), threading.Event()

    def sweep(_stop: Any) -> Iterator[None]:
        for _ in range(3):
            order.append("chunk")
            started.set()
            assert queued.wait(PATIENCE)
            yield

    slow = session.submit(sweep, priority="sweep")
    assert started.wait(PATIENCE)
    quick = session.submit(lambda _: order.append("interactive"))
    queued.set()
    quick.result()
    slow.result()
    assert order == ["chunk", "interactive", "chunk", "chunk"]


def test_work_that_came_later_goes_between_the_chunks_of_its_equals() -> None:
    session = Session(tiny.model("llama"), tiny.ids(LENGTH))
    order: list[str] = []
    started, queued = threading.Event(), threading.Event()

    def long(_stop: Any) -> Iterator[None]:
        for _ in range(3):
            order.append("token")
            started.set()
            assert queued.wait(PATIENCE)
            yield

    generation = session.submit(long)
    assert started.wait(PATIENCE)
    drag = session.submit(lambda _: order.append("drag"))
    queued.set()
    drag.result()
    generation.result()
    assert order == ["token", "drag", "token", "token"]


def test_the_newest_request_of_a_key_wins() -> None:
    session = Session(tiny.model("llama"), tiny.ids(LENGTH))
    hold = threading.Event()
    session.submit(lambda _: hold.wait(PATIENCE))
    ran: list[int] = []

    def note(n: int, _stop: Any) -> None:
        ran.append(n)

    tasks = [session.submit(partial(note, n), key="drag") for n in range(5)]
    hold.set()
    tasks[-1].result()
    assert ran == [4]
    with pytest.raises(Stopped):
        tasks[0].result()


def test_an_error_in_a_job_reaches_who_waits_and_the_queue_works_on() -> None:
    session = Session(tiny.model("llama"), tiny.ids(LENGTH))

    def broken(_stop: Any) -> None:
        raise KeyError("what went wrong")

    with pytest.raises(KeyError, match="what went wrong"):
        session.submit(broken).result()
    assert session.submit(lambda _: 5).result() == 5
