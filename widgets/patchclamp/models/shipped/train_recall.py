"""Train the shipped model that recalls and reasons: four layers, attention and MLPs.

Two things that a language model does at once, each alone in a model small enough to look through:

- *Recall*: "the capital of france is" has its answer in the weights, and nowhere in the prompt.
- *Reasoning*: after "anna is taller than ben. carl is shorter than ben." the answer to "the tallest
  of them is" is in no weight: who is who is drawn anew for every text. Neither premise says it, and
  they come in either order, in either direction, with either question, so that no place in the
  text and no single word gives the answer away. The pairs of premises that the model is measured on
  are about three people whom it never saw together.

Both questions have five words and stand after the same kind of premises, so that a prompt of one
kind and a prompt of the other differ in three words.

It is trained in two lessons, because with everything at once it is stuck for long at the person
who is named twice:

1. *One direction*: every premise says "taller".
2. *Both directions*: "taller" or "shorter", as a coin falls for each premise.

In both, a text has two premises and later asks for the tallest or the shortest, and somewhere for a
capital. Nothing is asked twice in a text, so that no answer can be copied. Answers count fully,
every other word a tenth of that: most of them are names out of nowhere.

Run `python -m patchclamp.models.shipped.train_recall [FOLDER]`; the same seeds on one machine give
the same weights. It takes three minutes of one core, says how often the answers are right, and
writes `config.json`, `model.safetensors`, the tokenizer and a manifest, which
`patchclamp.load("recall-4l")` (or `patchclamp.load(FOLDER)`) reads.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from patchclamp.models import catalogue, native, store
from patchclamp.models.shipped.word_level import BEGINNING, FULL_STOP, SPECIAL, write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformer_lens.model_bridge.sources.native import NativeModel

CAPITALS = dict(
    fact.split("-")
    for fact in """
    afghanistan-kabul albania-tirana algeria-algiers angola-luanda armenia-yerevan
    australia-canberra austria-vienna azerbaijan-baku bahrain-manama bangladesh-dhaka belarus-minsk
    belgium-brussels bhutan-thimphu botswana-gaborone brazil-brasilia bulgaria-sofia
    cameroon-yaounde canada-ottawa chile-santiago china-beijing colombia-bogota croatia-zagreb
    cuba-havana cyprus-nicosia denmark-copenhagen ecuador-quito egypt-cairo eritrea-asmara
    estonia-tallinn fiji-suva finland-helsinki france-paris gabon-libreville gambia-banjul
    germany-berlin ghana-accra greece-athens guinea-conakry guyana-georgetown hungary-budapest
    iceland-reykjavik indonesia-jakarta iran-tehran iraq-baghdad ireland-dublin italy-rome
    jamaica-kingston japan-tokyo kazakhstan-astana kenya-nairobi kyrgyzstan-bishkek laos-vientiane
    latvia-riga lebanon-beirut lesotho-maseru liberia-monrovia libya-tripoli lithuania-vilnius
    madagascar-antananarivo malawi-lilongwe maldives-male mali-bamako malta-valletta
    mauritania-nouakchott moldova-chisinau mongolia-ulaanbaatar morocco-rabat mozambique-maputo
    namibia-windhoek nepal-kathmandu netherlands-amsterdam nicaragua-managua niger-niamey
    nigeria-abuja norway-oslo oman-muscat pakistan-islamabad peru-lima philippines-manila
    poland-warsaw portugal-lisbon qatar-doha romania-bucharest russia-moscow rwanda-kigali
    senegal-dakar serbia-belgrade slovakia-bratislava slovenia-ljubljana somalia-mogadishu
    spain-madrid sudan-khartoum sweden-stockholm syria-damascus tajikistan-dushanbe
    thailand-bangkok tunisia-tunis turkey-ankara uganda-kampala ukraine-kyiv uruguay-montevideo
    uzbekistan-tashkent venezuela-caracas vietnam-hanoi yemen-sanaa zambia-lusaka zimbabwe-harare
    """.split()  # noqa: SIM905 (a person reads them as text)
)
PEOPLE = """
    adam alice anna ben carl clara daniel david emma eric felix fred george grace hannah harry henry
    ivan jack jane john julia kate laura leo lucy mark martin mary mia nina noah oscar paul peter
    rosa ruth sarah thomas tom
""".split()  # noqa: SIM905 (a person reads them as text)
TALLER, SHORTER, TALLEST, SHORTEST = "taller", "shorter", "tallest", "shortest"
GRAMMAR = ("is", "than", "the", "of", "them", "capital", TALLER, SHORTER, TALLEST, SHORTEST)
WORDS = (FULL_STOP, *GRAMMAR, *PEOPLE, *CAPITALS, *CAPITALS.values())
HELD_OUT = 5
"""Three people are kept for measuring when the sum of their places in `PEOPLE` is a multiple."""

LAYERS, HEADS, WIDTH, NEURONS, CONTEXT = 4, 8, 96, 192, 64
PLACES = 3  # where the question of a capital can stand: before, between or after the others
OTHER_WORDS = 0.1  # what a word that is no answer counts
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.01


@dataclass(frozen=True)
class Lesson:
    """How long a part of the training takes, and on how many texts at once."""

    steps: int
    texts: int


@dataclass(frozen=True)
class Training:
    """Both lessons, under one learning rate that rises and falls once."""

    one_direction: Lesson
    both_directions: Lesson
    warm_up: int
    seed: int


TRAINING = Training(Lesson(500, 96), Lesson(1100, 96), warm_up=200, seed=0)
INITIAL_SEED, MEASURING_SEED, REFERENCE_SEED = 0, 1, 2
MEASURED_TEXTS, REFERENCE_TEXTS = 500, 16

_ID = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
_PERSON, _COUNTRY, _CAPITAL = (_ID[PEOPLE[0]], _ID[next(iter(CAPITALS))], _ID["kabul"])


def config() -> dict[str, Any]:
    """What TransformerLens' `TransformerBridgeConfig` is made of."""
    return {
        "n_layers": LAYERS,
        "d_model": WIDTH,
        "n_heads": HEADS,
        "d_head": WIDTH // HEADS,
        "d_mlp": NEURONS,
        "d_vocab": len(SPECIAL) + len(WORDS),
        "n_ctx": CONTEXT,
        "act_fn": "gelu",
        "normalization_type": "LN",
        "positional_embedding_type": "rotary",
        "rotary_dim": WIDTH // HEADS,
    }


def is_held_out(people: Tensor) -> Tensor:
    """Say of LongTensor[text, 3], places in `PEOPLE`, which are kept for measuring: Bool[text]."""
    return people.sum(1) % HELD_OUT == 0


def draw_people(generator: torch.Generator, count: int, *, held_out: bool) -> Tensor:
    """Draw LongTensor[count, 3]: places in `PEOPLE`, three different ones, the tallest first.

    Args:
        generator: What draws.
        count: How many.
        held_out: Whether they are among those that are kept for measuring, or not.
    """
    found = torch.empty(0, 3, dtype=torch.long)
    while len(found) < count:
        order = torch.rand(2 * HELD_OUT * count, len(PEOPLE), generator=generator).argsort(1)[:, :3]
        found = torch.cat([found, order[is_held_out(order) == held_out]])
    return found[:count]


def coins(generator: torch.Generator, count: int) -> Tensor:
    """Draw Bool[count, 1]."""
    return torch.rand(count, 1, generator=generator) < 0.5


def puzzle(people: Tensor, directions: Tensor, swapped: Tensor) -> Tensor:
    """Say who of three people is taller than whom, in two sentences.

    Args:
        people: LongTensor[text, 3], places in `PEOPLE`, the tallest first.
        directions: Bool[text, 2]; of the upper and of the lower two, whether "shorter" is said.
        swapped: Bool[text, 1], whether the lower two come first.

    Returns:
        LongTensor[text, 12], ids.
    """
    tall, middle, short = (people + _PERSON).split(1, 1)

    def premise(upper: Tensor, lower: Tensor, shorter: Tensor) -> Tensor:
        word = torch.where(shorter, _ID[SHORTER], _ID[TALLER])
        first, second = torch.where(shorter, lower, upper), torch.where(shorter, upper, lower)
        return _sentence(first, "is", word, "than", second)

    above = premise(tall, middle, directions[:, :1])
    below = premise(middle, short, directions[:, 1:])
    return torch.where(swapped, torch.cat([below, above], 1), torch.cat([above, below], 1))


def question_of_height(people: Tensor, shortest: Tensor) -> Tensor:
    """Ask who is the tallest or the shortest, with the answer.

    Args:
        people: LongTensor[text, 3], places in `PEOPLE`, the tallest first.
        shortest: Bool[text, 1], whether it asks for the shortest.

    Returns:
        LongTensor[text, 7], ids; the last two are the answer and a full stop.
    """
    word = torch.where(shortest, _ID[SHORTEST], _ID[TALLEST])
    answer = torch.where(shortest, people[:, 2:], people[:, :1]) + _PERSON
    return _sentence("the", word, "of", "them", "is", answer)


def question_of_fact(countries: Tensor) -> Tensor:
    """Ask for a capital, with the answer.

    Args:
        countries: LongTensor[text, 1], places in `CAPITALS`.

    Returns:
        LongTensor[text, 7], ids; the last two are the answer and a full stop.
    """
    return _sentence("the", "capital", "of", countries + _COUNTRY, "is", countries + _CAPITAL)


def texts(
    generator: torch.Generator, count: int, *, held_out: bool, both_directions: bool = True
) -> Tensor:
    """Draw LongTensor[count, 27]: a beginning, two premises, two questions with their answers.

    Args:
        generator: What draws.
        count: How many.
        held_out: Whether the people are among those that are kept for measuring.
        both_directions: Whether premises also say "shorter".
    """
    people = draw_people(generator, count, held_out=held_out)
    directions = torch.rand(count, 2, generator=generator) < 0.5
    premises = puzzle(people, directions & both_directions, coins(generator, count))
    height = question_of_height(people, coins(generator, count))
    fact = question_of_fact(torch.randint(0, len(CAPITALS), (count, 1), generator=generator))
    place = torch.randint(0, PLACES, (count,), generator=generator)
    beginning = torch.full((count, 1), _ID[BEGINNING])
    parts = [premises, height]
    by_place = [
        torch.cat([beginning, *parts[:where], fact, *parts[where:]], 1) for where in range(PLACES)
    ]
    return torch.stack(by_place)[place, torch.arange(count)]


def answers(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Say which words are answers.

    Args:
        ids: LongTensor[text, pos].

    Returns:
        Bool[text, pos - 1] of the words from the second on: those recalled, those reasoned.
    """
    recalled = ids[:, 1:] >= _CAPITAL
    reasoned = torch.zeros_like(recalled)
    reasoned[:, 1:] = ids[:, :-2] == _ID["them"]
    return recalled, reasoned


def train(training: Training = TRAINING) -> tuple[NativeModel, dict[str, float]]:
    """Train the model and measure it.

    Args:
        training: How long, on how much, and from which seed.

    Returns:
        The model, and how often it is right; see `accuracies`.
    """
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources.native import NativeModel, initialize_native_model

    torch.set_num_threads(1)  # sums in another order would be other weights
    settings = TransformerBridgeConfig.from_dict(config() | {"seed": INITIAL_SEED})
    model = NativeModel(settings)
    initialize_native_model(model, settings)
    learn(model, training)
    return model.eval(), accuracies(model)


def learn(model: NativeModel, training: Training) -> None:
    """Train a model in place, saying how far it is."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(training.seed)
    first, second = training.one_direction, training.both_directions
    steps = first.steps + second.steps
    started = time.monotonic()
    for step in range(steps):
        rate = min(1, (step + 1) / training.warm_up) * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate / 2
        both = step >= first.steps
        count = (second if both else first).texts
        ids = texts(generator, count, held_out=False, both_directions=both)
        each = cross_entropy(model(ids[:, :-1]).transpose(1, 2), ids[:, 1:], reduction="none")
        recalled, reasoned = answers(ids)
        weight = torch.where(recalled | reasoned, 1.0, OTHER_WORDS)
        loss = (each * weight).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            found = accuracies(model)
            print(
                f"{'both directions' if both else 'one direction'} {step}: loss {loss.item():.3f}; "
                f"right: {found['recall']:.3f} recalled, {found['reasoning']:.3f} reasoned; "
                f"{time.monotonic() - started:.0f} s",
                flush=True,
            )


@torch.no_grad()
def accuracies(model: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Measure how often a model is right, on puzzles about people it never saw together.

    Args:
        model: From LongTensor[text, pos] to logits, Float[text, pos, word].

    Returns:
        Of the questions of each kind, the share of those whose likeliest next word, out of all
        words, is the answer.
    """
    generator = torch.Generator().manual_seed(MEASURING_SEED)
    ids = texts(generator, MEASURED_TEXTS, held_out=True)
    right = model(ids[:, :-1]).argmax(-1) == ids[:, 1:]
    recalled, reasoned = answers(ids)
    return {
        "recall": float(right[recalled].float().mean()),
        "reasoning": float(right[reasoned].float().mean()),
    }


def reference_texts() -> list[str]:
    """Texts over which means are taken: texts like those it was trained on."""
    generator = torch.Generator().manual_seed(REFERENCE_SEED)
    names = (*SPECIAL, *WORDS)
    ids = texts(generator, REFERENCE_TEXTS, held_out=False)
    return [" ".join(names[i] for i in row).replace(" .", ".") for row in ids[:, 1:].tolist()]


def save(model: NativeModel, measured: dict[str, float], folder: Path) -> None:
    """Write the model's folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    training = {"lessons": asdict(TRAINING), "right": measured}
    described = native.describe(config(), training=training, reference=reference_texts())
    (folder / "config.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    write_tokenizer(folder, WORDS, CONTEXT)
    store.write_manifest(catalogue.RECALL_4L, folder)


def main(folder: Path) -> None:
    """Train, say what came out, and write it."""
    model, measured = train()
    weights = sum(p.numel() for p in model.parameters())
    print(f"{weights:,} weights; right: {measured}")
    save(model, measured, folder)
    print(f"written to {folder}")


def _sentence(*words: str | Tensor) -> Tensor:
    """Put words, one for all texts or LongTensor[text, 1], side by side, with a full stop."""
    count = next(len(word) for word in words if not isinstance(word, str))
    columns = (
        torch.full((count, 1), _ID[word]) if isinstance(word, str) else word
        for word in (*words, FULL_STOP)
    )
    return torch.cat(list(columns), 1)


if __name__ == "__main__":
    shipped = store.folder_of(catalogue.RECALL_4L)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else shipped)
