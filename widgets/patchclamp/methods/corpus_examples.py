"""Dataset examples: what a unit answers to in a corpus, and how the user's own input compares.

One pass over texts or stimuli measures a unit everywhere and keeps its distribution, the top
examples and random ones of every part of it; see :mod:`patchclamp.methods.example_groups` for what
is shown, and :mod:`patchclamp.methods.text_examples` and
:mod:`patchclamp.methods.stimulus_examples` for how texts and stimuli are run. One's own text or
stimulus is measured by the same code, so that it stands on the same axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from patchclamp.corpora.english import passages
from patchclamp.engine.engine import Engine
from patchclamp.errors import InputError
from patchclamp.methods.stimulus_examples import own_stimulus, stimulus_examples
from patchclamp.methods.text_examples import own_text, text_examples

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor

    from patchclamp.corpora.english import Passage
    from patchclamp.engine.module_engine import ModuleEngine
    from patchclamp.methods.example_groups import CorpusUnit, Example, Scan, Survey
    from patchclamp.methods.objective import Objective
    from patchclamp.methods.stimulus_examples import Stimuli
    from patchclamp.methods.text_examples import Text, TokenizedTexts
    from patchclamp.models.language_model import LanguageModel

    ShouldStop = Callable[[], bool]
    Corpus: TypeAlias = Sequence[Text] | TokenizedTexts | Stimuli


def corpus_examples(
    engine: Engine | ModuleEngine,
    objective: Objective,
    corpus: Corpus,
    survey: Survey | None = None,
    should_stop: ShouldStop | None = None,
) -> Generator[Scan, None, None]:
    """Measure a unit over a corpus. Runs on the model's worker.

    Args:
        engine: the model's.
        objective: the unit.
        corpus: of a language model texts, of another one stimuli; see
            :func:`patchclamp.methods.text_examples.text_examples` and
            :func:`patchclamp.methods.stimulus_examples.stimulus_examples`.
        survey: how, and what is shown.
        should_stop: asked before every block or module.

    Yields:
        After each batch the same scan, with more in it; its ``so_far()`` is the result.

    Raises:
        InputError: for an empty corpus, and what the model does not take.
        MetricError: when an activation is no finite number.
        Stopped: when ``should_stop`` said so; the scan that was yielded keeps what was measured.
    """
    if isinstance(engine, Engine):
        texts = cast("Sequence[Text] | TokenizedTexts", corpus)
        return text_examples(engine, objective, texts, survey, should_stop)
    return stimulus_examples(engine, objective, cast("Stimuli", corpus), survey, should_stop)


def examples_of(
    engine: Engine | ModuleEngine,
    objective: Objective,
    corpus: Corpus,
    survey: Survey | None = None,
) -> CorpusUnit:
    """Measure a unit over a whole corpus. Waits for the model's worker.

    Args:
        engine: the model's.
        objective: the unit.
        corpus: as in :func:`corpus_examples`.
        survey: how, and what is shown.

    Raises:
        InputError: for an empty corpus, and what the model does not take.
        MetricError: when an activation is no finite number.
        Stopped: when it was stopped.
    """

    def steps(stop: ShouldStop) -> Generator[None, None, CorpusUnit]:
        for scan in corpus_examples(engine, objective, corpus, survey, stop):
            last = scan
            yield
        return last.so_far()

    job: Callable[[ShouldStop], Any] = steps
    found: CorpusUnit = engine.queue.submit(job, priority="sweep").result()
    return found


def own_example(
    engine: Engine | ModuleEngine,
    objective: Objective,
    given: Text | Tensor,
    label: str = "",
    should_stop: ShouldStop | None = None,
) -> Example:
    """Measure a unit on one's own text or stimulus. Runs on the model's worker.

    Args:
        engine: the model's.
        objective: the unit.
        given: a text or token ids, or a stimulus.
        label: what to call a stimulus.
        should_stop: asked before every block or module.

    Raises:
        InputError: when the model does not take it.
        MetricError: when the activation is no finite number.
        Stopped: when ``should_stop`` said so.
    """
    if isinstance(engine, Engine):
        return own_text(engine, objective, given, should_stop)
    return own_stimulus(engine, objective, cast("Tensor", given), label, should_stop)


def shipped_texts(model: LanguageModel) -> tuple[str | Passage, ...]:
    """Return the texts for a model that nobody named any for.

    Those that are ordinary for it where ordinary text is not (a small model of its own words), else
    the English passages that come with the package.

    Raises:
        InputError: for a model without a tokenizer.
    """
    if model.tokenizer is None:
        msg = f"{model.name} has no tokenizer: give lists of token ids as a corpus."
        raise InputError(msg)
    return model.reference or passages()
