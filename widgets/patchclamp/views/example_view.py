"""What drives a unit beside what was optimised: examples of a corpus, measured on the same axis.

Of a language model the best examples, cut at the token they are of, join the plot of prompts
(`dream_view.py`), with their cross-entropy.
"""

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from patchclamp.engine.candidates import Candidates
from patchclamp.engine.engine import Engine
from patchclamp.errors import InputError, PatchclampError, Stopped
from patchclamp.methods.corpus_examples import corpus_examples, shipped_texts
from patchclamp.methods.front import Candidate
from patchclamp.methods.stimulus_examples import StimulusExample
from patchclamp.methods.text_examples import (
    TextExample,
    TokenizedTexts,
    endings,
    tokenizing,
)

from . import aims, rows
from . import messages as say
from .dream_view import DreamView
from .messages import MaximizerMode
from .stimulus_pictures import THUMBNAIL, picture
from .view import ShouldStop

if TYPE_CHECKING:
    import pandas as pd

    from patchclamp.methods.corpus_examples import Corpus
    from patchclamp.methods.example_groups import CorpusUnit, Example, Scan
    from patchclamp.methods.objective import Objective
    from patchclamp.models.stimulus import Stimulus

_FILLS_EVERY = 0.5  # seconds between two pictures of examples that fill in
_BESIDE = 8  # examples that join the plot of prompts


class ExampleView(DreamView):
    """The part of ActivationMaximizer that is about inputs that were not optimised.

    Args:
        corpus: texts, or stimuli in the declared range (a tensor, a list, or by name); by default
            what comes with the package, where that suits the model.
    """

    def __init__(self, *args: Any, corpus: "Corpus | None" = None, **options: Any) -> None:
        self._given_corpus = corpus
        self._corpus_kept: Corpus | None = None
        self._scanned: tuple[Objective, Scan, CorpusUnit] | None = None
        self._tokens_kept: tuple[Corpus, TokenizedTexts] | None = None
        super().__init__(*args, **options)

    # --- the same gestures, from Python -----------------------------------------------------------

    def examples(self) -> "pd.DataFrame":
        """Measure the unit on the corpus; an interrupt or a Stop keeps what was measured.

        Returns:
            Examples, one a row: group, activation, and where it is from. `on_corpus` has all.

        Raises:
            InputError: when there is no corpus that suits the model.
            AddressError: when no unit was chosen.
            MetricError: when an activation is no finite number.
        """
        target, corpus = aims.objective_of(self._aim), self._corpus()
        self._sweep(
            "examples", "measuring examples", self._examples_job(target, corpus), self._measured_of
        )
        self._push_examples(always=True)
        return self.on_corpus.frame()

    @property
    def on_corpus(self) -> "CorpusUnit":
        """The unit's distribution on the corpus and examples of every part of it.

        Raises:
            InputError: when it was not measured yet.
        """
        if self._scanned is None:
            msg = "The unit was not measured on a corpus yet: view.examples() does it."
            raise InputError(msg)
        return self._scanned[2]

    # --- gestures from the page -------------------------------------------------------------------

    def _on_examples(self, _message: say.Examples) -> None:
        self._refuse_mode("examples")
        with rows.about("kind"):
            target, corpus = aims.objective_of(self._aim), self._corpus()
        self._stop_tasks(lambda name: name == "examples")
        self._start(
            "examples",
            "measuring examples",
            self._examples_job(target, corpus),
            then=lambda _none: self._push_examples(always=True),
            failed=self._examples_failed,
            priority="sweep",
        )

    # --- measuring --------------------------------------------------------------------------------

    def _examples_job(self, target: "Objective", corpus: "Corpus") -> Callable[[ShouldStop], Any]:
        engine = self._session.engine

        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            scan = None
            read = yield from self._read_corpus(corpus, should_stop)
            for scan in corpus_examples(engine, target, read, None, should_stop):
                progress = say.Progress(job="examples", done=scan.done, total=scan.total)
                self._push(("progress", "examples"), progress)
                if self._now_and_then("scan", always=False, every=_FILLS_EVERY):
                    self._scanned = (target, scan, scan.so_far())
                    self._push_examples()
                yield
            if scan is not None:
                self._scanned = (target, scan, scan.so_far())
                yield from self._beside_job(target, scan.so_far(), should_stop)

        return job

    def _starts(
        self, target: "Objective", length: int, stop: ShouldStop
    ) -> Generator[None, None, list[tuple[int, ...]]]:
        """The prompts of some length that lead up to a unit's peaks in a corpus.

        Raises:
            InputError: when there is no corpus, or no peak has so many tokens.
        """
        known = self._scanned
        if known is None or known[0] != target or not known[2].finished:
            yield from self._examples_job(target, self._corpus())(stop)
            self._push_examples(always=True)
        top = self.on_corpus.groups[0].examples
        found = endings([one for one in top if isinstance(one, TextExample)], length)
        if not found:
            msg = f"No example has {length:,} tokens up to its peak: search for a shorter prompt."
            raise InputError(msg)
        return found

    def _read_corpus(
        self, corpus: "Corpus", should_stop: ShouldStop
    ) -> "Generator[None, None, Corpus]":
        """The corpus as the model's tokens, a few texts at a time; read once for all units."""
        if self._module is not None or isinstance(corpus, TokenizedTexts):
            return corpus
        if self._tokens_kept is None or self._tokens_kept[0] is not corpus:
            texts: Any = corpus
            whole = yield from tokenizing(
                self._language_session().model, texts, should_stop=should_stop
            )
            self._tokens_kept = (corpus, whole)
        return self._tokens_kept[1]

    def _beside_job(
        self, target: "Objective", found: "CorpusUnit", should_stop: ShouldStop
    ) -> Generator[None, None, None]:
        """Give the best examples of a language model a place in the plot of prompts."""
        engine = self._session.engine
        if not isinstance(engine, Engine) or not engine.model.anatomy.causal or not found.groups:
            return
        best: list[Candidate] = []
        for each in found.groups[0].examples[:_BESIDE]:
            if isinstance(each, TextExample) and each.peak is not None:
                ids = self._with_bos(each.ids[: each.peak + 1])
                cost = self._cross_entropy(target, ids, should_stop)
                best.append(Candidate(ids, each.activation, cost))
                self._shaded["corpus", ids] = each.values[: each.peak + 1]
                yield
        self._beside["corpus"] = (target, best)
        self._push_front(always=True)

    def _examples_failed(self, error: PatchclampError) -> None:
        if not isinstance(error, Stopped):
            self._say_error(error, self._session.revision)
        self._push_examples(always=True)

    def _cross_entropy(
        self, target: "Objective", ids: Sequence[int], should_stop: ShouldStop
    ) -> float:
        """Nats a token of a prompt, by the model; NaN where there is nothing to predict."""
        engine = self._language_session().engine
        length = len(self._bare(tuple(ids)))
        prompts = Candidates(engine, target, length).prompts(
            [tuple(ids)], slopes=False, should_stop=should_stop
        )
        return prompts[0].cross_entropy

    def _with_bos(self, ids: Sequence[int]) -> tuple[int, ...]:
        bos = self._language_session().model.bos_id
        return tuple(ids) if bos is None else (bos, *ids)

    def _up_to_peak(self, example: TextExample) -> tuple[int, ...]:
        """The ids up to the token that the activation is of."""
        end = len(example.ids) if example.peak is None else example.peak + 1
        return self._with_bos(example.ids[:end])

    # --- what is measured on ----------------------------------------------------------------------

    def _corpus(self) -> "Corpus":
        """What examples are taken from.

        Raises:
            InputError: when there is nothing that suits the model.
        """
        if self._given_corpus is not None:
            return self._given_corpus
        if self._corpus_kept is None:
            self._corpus_kept = self._shipped_corpus()
        return self._corpus_kept

    def _shipped_corpus(self) -> "Corpus":
        if self._module is None:
            return shipped_texts(self._language_session().model)
        refusal = self._no_corpus()
        if refusal is not None:
            raise InputError(refusal)
        from patchclamp.corpora.sample_pictures import pictures

        stimulus = self._module.model.stimulus
        found = pictures(stimulus.example_shape()[-1])
        stimuli = stimulus.low + (stimulus.high - stimulus.low) * found.stimuli
        return dict(zip(found.names, stimuli, strict=True))

    def _no_corpus(self) -> str | None:
        """Why there are no examples here; None where there are."""
        if self._given_corpus is not None:
            return None
        module = self._module
        if module is None:
            model = self._language_session().model
            if model.tokenizer is not None:
                return None
            return (
                "This model has no tokenizer, and so no texts that come with the package: give "
                "ActivationMaximizer lists of token ids as corpus=."
            )
        if _takes_photographs(module.model.stimulus):
            return None
        return (
            "The pictures that come with the package are colour photographs, which this model does "
            "not take: give ActivationMaximizer stimuli as corpus=."
        )

    def _refusals(self) -> dict[MaximizerMode, str | None]:
        found = super()._refusals()
        found["examples"] = found["examples"] or self._no_corpus()
        return found

    def _corpus_name(self) -> str:
        if self._no_corpus() is not None:
            return ""
        what = "texts" if self._module is None else "pictures"
        if self._module is not None and self._module.model.stimulus.renderer != "image":
            what = "stimuli"
        if self._given_corpus is None:
            return f"{what} that come with the package"
        return f"{_count(self._given_corpus)} {what}"

    # --- loading ----------------------------------------------------------------------------------

    def _load_example(self, group: int, index: int) -> str:
        """Put an example of the corpus into the session.

        Raises:
            InputError: when there is no such example.
        """
        groups = self.on_corpus.groups
        if not (0 <= group < len(groups) and 0 <= index < len(groups[group].examples)):
            msg = f"There is no example {index} in group {group}."
            raise InputError(msg)
        example = groups[group].examples[index]
        if isinstance(example, StimulusExample):
            self._module_session().set_input(example.stimulus, name=example.name)
            return example.name
        return self._load_ids(self._up_to_peak(example))

    # --- what there is to draw --------------------------------------------------------------------

    def _measured_of(self) -> "CorpusUnit | None":
        return None if self._scanned is None else self._scanned[2]

    def _push_examples(self, *, always: bool = False) -> None:
        if self._shown and self._now_and_then("examples", always=always, every=_FILLS_EVERY):
            self._push("examples", say.ExamplesUpdate(examples=self._examples_message()))

    def _examples_message(self) -> say.CorpusExamples | None:
        if self._scanned is None:
            return None
        target, _, found = self._scanned
        kind: Literal["texts", "stimuli"] = "texts" if found.of == "tokens" else "stimuli"
        words = f", {found.count:,} tokens" if kind == "texts" else ""
        return say.CorpusExamples(
            objective=target.text,
            corpus=f"{found.sources:,} {kind}{words}",
            done=found.done,
            total=found.total,
            count=found.count,
            mean=found.mean,
            sd=found.sd,
            maximum=found.maximum,
            edges=np.asarray(found.edges, dtype=np.float32),
            counts=np.asarray(found.counts, dtype=np.int32),
            groups=[
                say.ExampleGroup(
                    name=group.name,
                    low=group.low,
                    high=group.high,
                    examples=[self._example(target, each) for each in group.examples],
                )
                for group in found.groups
            ],
            low=min(found.minimum, 0.0),
            high=max(found.maximum, 0.0),
            note=found.note,
        )

    def _example(
        self, target: "Objective", example: "Example", cost: float | None = None
    ) -> say.Example:
        if isinstance(example, StimulusExample):
            return self._stimulus_example(target, example)
        shown = example.around() if example.source >= 0 else example
        return say.Example(
            objective=target.text,
            activation=shown.activation,
            name=", ".join(filter(None, (shown.label, shown.name))),
            tokens=[
                say.TokenName(id=token, text=text)
                for token, text in zip(shown.ids, shown.tokens, strict=True)
            ],
            activations=shown.values.numpy() if len(shown.values) else None,
            at=shown.peak,
            cross_entropy=cost,
            picture=None,
            map=None,
            map_height=0,
            map_width=0,
        )

    def _stimulus_example(self, target: "Objective", example: StimulusExample) -> say.Example:
        stimulus = self._module_session().model.stimulus
        most = THUMBNAIL if example.source >= 0 else 4 * THUMBNAIL
        places = example.map.reshape(-1, example.map.shape[-1]) if example.map.ndim else None
        return say.Example(
            objective=target.text,
            activation=example.activation,
            name=example.name,
            tokens=[],
            activations=None,
            at=None,
            cross_entropy=None,
            picture=picture(stimulus, example.stimulus, most),
            map=None if places is None else places.numpy(),
            map_height=0 if places is None else len(places),
            map_width=0 if places is None else places.shape[1],
        )


def _takes_photographs(stimulus: "Stimulus") -> bool:
    """Whether the pictures that come with the package are something that a model takes."""
    shape = stimulus.shape
    square = len(shape) == 3 and shape[1] == shape[2]
    return stimulus.renderer == "image" and stimulus.bounded and square and shape[0] == 3


def _count(corpus: "Corpus") -> int:
    sources: int = getattr(corpus, "sources", -1)
    return sources if sources >= 0 else len(corpus)  # type: ignore[arg-type]
