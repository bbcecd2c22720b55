"""Sets of prompt pairs: a clean prompt, a corrupt one, the answer and a wrong one.

A pair differs in what decides the answer and in nothing else, so that a model that knows the task
prefers the answer on the clean prompt and not on the corrupt one. All prompts of a set have one
token length, so that its pairs run as one batch and position 4 means the same in each.

Five tasks come with the package, written anew from seeded templates; the tasks and their use in
finding circuits are from

- *capitals*: recalling a fact about a subject (Meng et al. 2022, "Locating and Editing Factual
  Associations in GPT"; Merullo et al. 2023 on capitals, "Language Models Implement Simple
  Word2Vec-style Vector Arithmetic"). Corrupt: another country, whose capital is the wrong answer.
- *pronouns*: the pronoun that a name's gender asks for (Mathwin et al. 2023, "Identifying a
  Preliminary Circuit for Predicting Gendered Pronouns in GPT-2 Small"). Corrupt: a name of the
  other gender. The sentence is one that ends in a question tag, as theirs does.
- *indirect-objects*: "When Mary and John went to the store, John gave a drink to" (Wang et al.
  2022, "Interpretability in the Wild"), with both orders of the names. Corrupt: the other one
  gives, so that the answer changes sides; their ABC prompts, with a third name, only take it away.
- *greater-than*: a war that began in 1743 ends in a later year (Hanna, Liu & Variengien 2023, "How
  does GPT-2 compute greater-than?"). There the next token is a two-digit year and the metric is of
  all hundred. Here an answer and a wrong one of the same distance stand for the two sides: where a
  tokenizer writes digits one by one, SmolLM2's for one, the decades two above and two below, else
  the years 20 above and 20 below. Corrupt: the year 0x of the century, after which both are
  possible; the earlier is the nearer one, so that the preference turns.
- *docstrings*: the next argument to be documented (Heimersheim & Janiak 2023, "A circuit for Python
  docstrings in a 4-layer attention-only transformer"). Corrupt: the signature has the last two
  arguments in the other order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import torch

from patchclamp.engine.surroundings import input_of
from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from patchclamp.engine.plan import Input
    from patchclamp.models.language_model import LanguageModel

_FIRST_LOOK = 64
"""So many candidates say which token length is the commonest."""
_TRIES = 4000


@dataclass(frozen=True)
class Pair:
    """Two prompts that differ in what decides the answer.

    Attributes:
        clean: the prompt.
        corrupt: the prompt with another answer.
        answer: the next token on the clean prompt, as text with its leading space.
        wrong: the next token that the corrupt prompt makes likelier.
    """

    clean: str
    corrupt: str
    answer: str
    wrong: str


@dataclass(frozen=True)
class PromptSet:
    """Pairs that are measured together, all of one token length.

    Attributes:
        name: what it is called.
        about: what it asks for, in a line.
        seed: what it was drawn with.
        pairs: the pairs, one at least.
        note: what was left out when it was made; may be empty.

    Raises:
        InputError: when it holds no pair.
    """

    name: str
    about: str
    seed: int
    pairs: tuple[Pair, ...]
    note: str = ""

    def __post_init__(self) -> None:
        pairs = tuple(self.pairs)
        if not pairs or not all(isinstance(pair, Pair) for pair in pairs):
            msg = f"The prompt set {self.name!r} needs pairs: patchclamp.Pair(clean, corrupt, ...)."
            raise InputError(msg)
        object.__setattr__(self, "pairs", pairs)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self) | {"pairs": [asdict(pair) for pair in self.pairs]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PromptSet:
        """Make a set of what :meth:`to_json` gave.

        Raises:
            InputError: when it is none.
        """
        try:
            pairs = tuple(Pair(**pair) for pair in data["pairs"])
            return cls(data["name"], data["about"], data["seed"], pairs, data.get("note", ""))
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"This is no prompt set ({type(error).__name__}: {error})."
            raise InputError(msg) from error


@dataclass(frozen=True)
class ReadPairs:
    """A set of pairs as a model reads it.

    Attributes:
        given: the set.
        clean: the clean inputs, all of one length.
        corrupt: the corrupt inputs, of the same length.
        tokens: of each pair the answer's id and the wrong one's.
    """

    given: PromptSet
    clean: tuple[Input, ...]
    corrupt: tuple[Input, ...]
    tokens: tuple[tuple[int, int], ...]


def read(given: PromptSet, model: LanguageModel, *, chat: bool = False) -> ReadPairs:
    """Tokenize a set of pairs.

    Args:
        given: the set.
        model: whose tokenizer reads it.
        chat: put the prompts through the model's chat template.

    Raises:
        InputError: when the model reads no text or predicts no next token, a prompt cannot be run,
            the prompts are of several lengths, or an answer is not one token.
    """
    _check_model(model)
    sides: dict[str, list[Input]] = {"clean": [], "corrupt": []}
    tokens: list[tuple[int, int]] = []
    for number, pair in enumerate(given.pairs, 1):
        for side, inputs in sides.items():
            try:
                inputs.append(input_of(model, model.to_ids(getattr(pair, side), chat=chat)))
            except InputError as error:
                msg = f"The {side} prompt of pair {number}: {error}"
                raise InputError(msg) from error
        tokens.append((_token(pair, "answer", number, model), _token(pair, "wrong", number, model)))
        if tokens[-1][0] == tokens[-1][1]:
            msg = (
                f"The answer and the wrong answer of pair {number} are one token: {pair.answer!r}."
            )
            raise InputError(msg)
        _check_lengths(sides["clean"], sides["corrupt"], number)
    return ReadPairs(given, tuple(sides["clean"]), tuple(sides["corrupt"]), tuple(tokens))


def _token(pair: Pair, which: str, number: int, model: LanguageModel) -> int:
    text = getattr(pair, which)
    said = "answer" if which == "answer" else "wrong answer"
    if not isinstance(text, str):
        msg = f"The {said} of pair {number} is a text such as ' Paris', not {text!r}."
        raise InputError(msg)
    try:
        return model.token_id(text)
    except InputError as error:
        msg = f"The {said} of pair {number} must be one token for the metric: {error}"
        raise InputError(msg) from error


def _check_lengths(clean: Sequence[Input], corrupt: Sequence[Input], number: int) -> None:
    one, other = len(clean[-1].ids), len(corrupt[-1].ids)
    if one != other:
        msg = (
            f"The clean prompt of pair {number} has {one} tokens and its corrupt one {other}: "
            "values are patched position by position, so both need the same length."
        )
        raise InputError(msg)
    if one != len(clean[0].ids):
        msg = (
            f"The prompts of pair 1 have {len(clean[0].ids)} tokens and those of pair {number} "
            f"{one}: a set runs as one batch, so all of its prompts need the same length."
        )
        raise InputError(msg)


def _check_model(model: LanguageModel) -> None:
    if model.tokenizer is None or not model.anatomy.causal:
        why = "has no tokenizer" if model.tokenizer is None else "predicts no next token"
        msg = f"{model.name} {why}, so there are no prompt pairs for it."
        raise InputError(msg)


def describe(name: str) -> str:
    """Say in a line what a set that comes with the package asks for.

    Raises:
        InputError: when there is no such set.
    """
    return _known(name).about


def prompt_set(name: str, model: LanguageModel, count: int = 16, seed: int = 0) -> PromptSet:
    """Draw pairs of one of the tasks that come with the package, for a model's tokenizer.

    What does not fit is left out and counted: a pair whose prompts have several lengths, or not the
    set's, and one whose answers are not the one token that continues its prompt. With the same seed
    a smaller set is the beginning of a larger one.

    Args:
        name: one of :data:`NAMES`.
        model: whose tokenizer it is for; the model itself is not run.
        count: how many pairs.
        seed: of what is drawn.

    Raises:
        InputError: when there is no such set, the model reads no text or predicts no next token,
            or fewer pairs than wanted fit.
    """
    task = _known(name)
    _check_model(model)
    if count < 1:
        msg = f"A prompt set has at least 1 pair, not {count}."
        raise InputError(msg)
    candidates = _distinct(task.draw(torch.Generator().manual_seed(seed), model))
    first = [fitted(pair, model) for pair in islice(candidates, _FIRST_LOOK)]
    lengths = Counter(fit for _, fit in first if isinstance(fit, int))
    common = lengths.most_common(1)[0][0] if lengths else None
    pairs: list[Pair] = []
    left_out: Counter[str] = Counter()
    for pair, fit in chain(first, (fitted(pair, model) for pair in candidates)):
        if len(pairs) == count:
            break
        if fit == common:
            pairs.append(pair)
        else:
            left_out[fit if isinstance(fit, str) else "of another length than the others"] += 1
    total = len(pairs) + left_out.total()
    why = ", ".join(f"{number:,} {reason}" for reason, number in left_out.most_common())
    if len(pairs) < count:
        few = f"only {len(pairs):,} pairs" if pairs else "none"
        msg = (
            f"Of {total:,} candidates for {name!r} {few} can be used with {model.name}'s "
            f"tokenizer, and {count:,} were asked for: {why or 'there are no more'}."
        )
        raise InputError(msg)
    note = f"Left out for this tokenizer, of {total:,} candidates: {why}." if left_out else ""
    return PromptSet(name, task.about, seed, tuple(pairs), note)


def fitted(pair: Pair, model: LanguageModel) -> tuple[Pair, int | str]:
    """Return the pair with its token length, or with why a model's tokenizer cannot use it."""
    try:
        clean, corrupt = (model.to_ids(text).tolist() for text in (pair.clean, pair.corrupt))
    except InputError:
        return pair, "longer than the model takes"
    if len(clean) != len(corrupt):
        return pair, "with a corrupt prompt of another length"
    for answer in (pair.answer, pair.wrong):
        try:
            token = model.token_id(answer)
            continued = model.to_ids(pair.clean + answer).tolist()
        except InputError:
            return pair, "with an answer of several tokens"
        if continued != [*clean, token]:
            return pair, "with an answer that grows together with its prompt"
    if model.token_id(pair.answer) == model.token_id(pair.wrong):
        return pair, "with one token for both answers"
    return pair, len(clean)


def _distinct(pairs: Iterator[Pair]) -> Iterator[Pair]:
    seen: set[Pair] = set()
    for pair in pairs:
        if pair not in seen:
            seen.add(pair)
            yield pair


def _known(name: str) -> _Task:
    if name not in _TASKS:
        msg = f"There is no prompt set {name!r}: {', '.join(NAMES)} come with the package."
        raise InputError(msg)
    return _TASKS[name]


# The tasks ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    about: str
    draw: Callable[[torch.Generator, LanguageModel], Iterator[Pair]]


def _shuffled(items: Sequence[str], draw: torch.Generator) -> list[str]:
    return [items[i] for i in torch.randperm(len(items), generator=draw).tolist()]


def _number(below: int, draw: torch.Generator) -> int:
    return int(torch.randint(below, (1,), generator=draw))


def _one(items: Sequence[str], draw: torch.Generator) -> str:
    return items[_number(len(items), draw)]


def _words(text: str) -> list[str]:
    return text.split()


def _capitals(draw: torch.Generator, _model: LanguageModel) -> Iterator[Pair]:
    """Go through the countries, each with another one; then each with the next but one, and so on.

    So that no country comes twice before all have come.
    """
    order = _shuffled(list(_CAPITALS), draw)
    for step in range(1, len(order)):
        for place, country in enumerate(order):
            other = order[(place + step) % len(order)]
            clean, corrupt = (f"The capital of {c} is the city of" for c in (country, other))
            yield Pair(clean, corrupt, f" {_CAPITALS[country]}", f" {_CAPITALS[other]}")


def _pronouns(draw: torch.Generator, _model: LanguageModel) -> Iterator[Pair]:
    pronouns, names = (" she", " he"), (_WOMEN, _MEN)
    for index in range(_TRIES):
        side = index % 2
        skill = _one(_SKILLS, draw)
        clean, corrupt = (
            f"I heard that {_one(names[which], draw)} can {skill}, can't"
            for which in (side, 1 - side)
        )
        yield Pair(clean, corrupt, pronouns[side], pronouns[1 - side])


def _indirect_objects(draw: torch.Generator, _model: LanguageModel) -> Iterator[Pair]:
    for index in range(_TRIES):
        first, second = _shuffled([*_WOMEN, *_MEN], draw)[:2]
        giver, receiver = (first, second) if index % 2 else (second, first)
        place, thing = _one(_PLACES, draw), _one(_THINGS, draw)
        clean, corrupt = (
            f"When {first} and {second} went to the {place}, {who} gave a {thing} to"
            for who in (giver, receiver)
        )
        yield Pair(clean, corrupt, f" {receiver}", f" {giver}")


def _greater_than(draw: torch.Generator, model: LanguageModel) -> Iterator[Pair]:
    try:
        model.token_id("43")
    except InputError:
        pieces = 1  # it writes digits one by one
    else:
        pieces = 2
    for _ in range(_TRIES):
        event, century = _one(_EVENTS, draw), 14 + _number(5, draw)
        decade, year = 3 + _number(5, draw), 1 + _number(8, draw)
        clean, corrupt = (
            f"The {event} lasted from the year {century}{d}{year} to the year {century}"
            for d in (decade, 0)
        )
        answer, wrong = (f"{d}{year}"[:pieces] for d in (decade + 2, decade - 2))
        yield Pair(clean, corrupt, answer, wrong)


def _docstrings(draw: torch.Generator, _model: LanguageModel) -> Iterator[Pair]:
    for _ in range(_TRIES):
        function, *arguments = _shuffled(_ARGUMENTS, draw)[:5]
        words = _shuffled(_WORDS, draw)
        a, b, c, d = arguments
        clean, corrupt = (
            f"def {function}(self, {a}, {b}, {third}, {fourth}):\n"
            f'    """{words[0]} {words[1]}\n\n'
            f"    :param {a}: {words[2]} {words[3]}\n"
            f"    :param {b}: {words[4]} {words[5]}\n"
            "    :param"
            for third, fourth in ((c, d), (d, c))
        )
        yield Pair(clean, corrupt, f" {c}", f" {d}")


_CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "England": "London",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Russia": "Moscow",
    "Egypt": "Cairo",
    "Greece": "Athens",
    "Ireland": "Dublin",
    "Austria": "Vienna",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Cuba": "Havana",
    "Kenya": "Nairobi",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Syria": "Damascus",
    "Canada": "Ottawa",
    "Scotland": "Edinburgh",
    "Wales": "Cardiff",
    "Denmark": "Copenhagen",
    "Finland": "Helsinki",
    "Hungary": "Budapest",
    "Belgium": "Brussels",
    "Peru": "Lima",
    "Chile": "Santiago",
    "Afghanistan": "Kabul",
    "Netherlands": "Amsterdam",
    "Australia": "Canberra",
    "Tunisia": "Tunis",
    "Philippines": "Manila",
    "Bulgaria": "Sofia",
    "Turkey": "Ankara",
    "Romania": "Bucharest",
    "Thailand": "Bangkok",
    "Vietnam": "Hanoi",
    "Lebanon": "Beirut",
    "Senegal": "Dakar",
    "Qatar": "Doha",
    "Croatia": "Zagreb",
    "Serbia": "Belgrade",
}
_WOMEN = _words(
    "Mary Sarah Emily Anna Alice Laura Emma Lisa Linda Julia Susan Karen Jane Kate Amy Rachel "
    "Maria Helen Ruth Elizabeth Jessica Jennifer"
)
_MEN = _words(
    "John James Robert Michael David Tom Paul Peter Daniel George Henry Charles Jack Adam Ben "
    "Simon Frank Jason Brian Kevin Eric Andrew"
)
_SKILLS = _words("swim sing cook dance drive paint draw write read ride fly run")
_PLACES = _words("store school park office station hospital house garden market restaurant")
_THINGS = _words("drink book ring ball letter gift flower computer basketball ticket")
_EVENTS = _words("war trial siege voyage strike drought famine reign peace journey")
_ARGUMENTS = _words(
    "load size files last path value key data count index title color width height model image "
    "text list item user date type code mode port host state line page"
)
_WORDS = _words(
    "river stone garden winter music paper silver bridge market forest window kitchen doctor "
    "letter summer morning island engine"
)

_TASKS = {
    "capitals": _Task("The capital of a country", _capitals),
    "pronouns": _Task("The pronoun that a name asks for", _pronouns),
    "indirect-objects": _Task("Who is given something, of two who were named", _indirect_objects),
    "greater-than": _Task("A year later than the one that was named", _greater_than),
    "docstrings": _Task("The next argument that a docstring describes", _docstrings),
}

NAMES: tuple[str, ...] = tuple(_TASKS)
"""The sets that come with the package."""
