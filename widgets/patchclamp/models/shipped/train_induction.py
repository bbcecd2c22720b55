"""Train the shipped induction model: two layers of attention, nothing else.

The smallest transformer that can continue a repeated sequence it has never seen is one with two
layers of attention and no MLPs: a head of the first layer writes onto each token which token came
before it, and a head of the second layer looks for what came after the current token's earlier
occurrence, and copies it (Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021;
Olsson et al., "In-context Learning and Induction Heads", 2022). One layer cannot do it.

It is trained in two lessons:

1. *Repetition*: random words, of which stretches come again at random places and with random
   lengths. Nothing but earlier occurrences says what comes next, so the only thing to learn is
   induction, and after a while without progress all eight heads of the second layer learn it.
2. *Repetition and themes*: the same, but each text has a vocabulary of its own, so that the words
   it has used so far say something about every word to come. Five heads of the second layer begin
   this lesson anew: three are enough for induction, and the five find something else to do.

Without the second lesson there would be nothing to compare an induction head with.

Run `python -m patchclamp.models.shipped.train_induction [FOLDER]`; the same seeds on one machine
give the same weights. It takes a quarter of an hour on one core, says what loss it reaches, and
writes `config.json`, `model.safetensors`, the tokenizer and a manifest, which
`patchclamp.load("induction-2l")` (or `patchclamp.load(FOLDER)`) reads.
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
from patchclamp.models.shipped.word_level import BEGINNING, SPECIAL, write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformer_lens.model_bridge.sources.native import NativeModel

# One token each, so that a prompt reads as words. None means anything to the model.
WORDS = """
    apple arm arrow aunt baby bag ball band bank barn basin bath beach bean bear bed bee bell belt
    bench bike bird boat bone book boot bowl box boy bread brick bridge brush bus bush cake camel
    camp candle cap car card cart cat cave chair chalk cheese cherry chest chin church clock cloud
    clown coat coin comb cook copper corn cow crab crow crown cup curtain deer desk dog doll door
    dove drum duck eagle ear egg elbow engine face fan farm fence ferry field fig finger fire fish
    flag flame flower flute foot fork fox frog fruit game garden gate girl glass glove goat gold
    goose grape grass guitar hair ham hammer hand harbor hat hawk hen hill honey hook horn horse
    hotel house ice ink island jam jar jelly key king kite knee knife lace lake lamb lamp leaf lemon
    letter lily lion lip lock log maid map mask milk mill moon moth mouse nail neck needle nest net
    nose nut oak ocean onion orange oven owl paint palm paper park peach pear pen piano pig pillow
    pipe plane plant plate pond pot queen quilt rabbit rain ring river road roof room root rope rose
    sack salt sand scarf school sea seed sheep shelf ship shirt shoe silk sink sister skin sky sled
    snail snake snow soap sock spoon spring square stamp star steel stem stone store stove straw
    street table tail teeth tent thread throat thumb tiger toad toe tooth town toy train tray tree
    truck uncle vase wall watch water wave wheel wind window wing winter wolf wood wool worm wrist
""".split()  # noqa: SIM905 (a person reads them as text)

LAYERS, HEADS, WIDTH, CONTEXT = 2, 8, 128, 128
LONGEST_COPY, LONGEST_NEW = 48, 24
THEME = 40  # words of a text's own vocabulary
KEPT = (0, 1, 4)  # heads of the second layer that keep what they learned in the first lesson
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.01


@dataclass(frozen=True)
class Lesson:
    """How long a part of the training takes, on how much text, and what seeds that text."""

    steps: int
    sequences: int
    warm_up: int
    seed: int


REPETITION = Lesson(steps=3000, sequences=32, warm_up=200, seed=0)
THEMES = Lesson(steps=700, sequences=24, warm_up=50, seed=7)
INITIAL_SEED, RENEWAL_SEED, MEASURING_SEED = 0, 1, 1
REFERENCE_SEED, REFERENCE_WORDS = 2, 24


def config() -> dict[str, Any]:
    """What TransformerLens' `TransformerBridgeConfig` is made of."""
    return {
        "n_layers": LAYERS,
        "d_model": WIDTH,
        "n_heads": HEADS,
        "d_head": WIDTH // HEADS,
        "d_vocab": len(SPECIAL) + len(WORDS),
        "n_ctx": CONTEXT,
        "attn_only": True,
        "act_fn": "gelu",  # required, and used by MLPs only
        "normalization_type": "LN",
        "positional_embedding_type": "rotary",
        "rotary_dim": WIDTH // HEADS,
    }


def random_words(generator: torch.Generator, sequences: int, length: int) -> Tensor:
    """Draw LongTensor[sequence, length]: any words."""
    first = len(SPECIAL)
    return torch.randint(first, first + len(WORDS), (sequences, length), generator=generator)


def themed_words(generator: torch.Generator, sequences: int, length: int) -> Tensor:
    """Draw LongTensor[sequence, length]: words of a small vocabulary, each text's own."""
    order = torch.rand(sequences, len(WORDS), generator=generator).argsort(1)
    vocabulary = order[:, :THEME] + len(SPECIAL)
    drawn = torch.randint(0, THEME, (sequences, length), generator=generator)
    return vocabulary.gather(1, drawn)


def repeat_stretches(ids: Tensor, generator: torch.Generator) -> Tensor:
    """Let stretches of texts come again, in place; position 0 becomes the beginning.

    New words and copies of what already stands there take turns, as a coin falls; where a copy
    starts, from where it is taken and how long it is, is drawn anew each time.

    Args:
        ids: LongTensor[sequence, pos].
        generator: What draws.
    """
    ids[:, 0] = SPECIAL.index(BEGINNING)
    drawn = torch.rand(*ids.shape, 3, generator=generator).tolist()
    length = ids.shape[1]
    for row, chances in zip(ids, drawn, strict=True):
        place = 1
        while place < length:
            coin, where, size = chances[place]
            if coin < 0.5 or place < 3:
                place += 1 + int(size * LONGEST_NEW)
                continue
            start = 1 + int(where * (place - 2))
            stop = min(start + 2 + int(size * LONGEST_COPY), place, start + length - place)
            row[place : place + stop - start] = row[start:stop].clone()
            place += stop - start
    return ids


def repeated(generator: torch.Generator, sequences: int, length: int) -> Tensor:
    """Draw LongTensor[sequence, 1 + 2 * length]: a beginning, random words, the same words."""
    half = random_words(generator, sequences, length)
    beginning = torch.full((sequences, 1), SPECIAL.index(BEGINNING))
    return torch.cat([beginning, half, half], 1)


def train(
    repetition: Lesson = REPETITION, themes: Lesson = THEMES
) -> tuple[NativeModel, dict[str, float]]:
    """Train the model and measure it.

    Args:
        repetition: The first lesson.
        themes: The second one.

    Returns:
        The model, and its mean losses; see `losses`.
    """
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources.native import NativeModel, initialize_native_model

    torch.set_num_threads(1)  # sums in another order would be other weights
    settings = TransformerBridgeConfig.from_dict(config() | {"seed": INITIAL_SEED})
    model = NativeModel(settings)
    initialize_native_model(model, settings)
    learn(model, repetition, random_words)
    renew_heads(model)
    learn(model, themes, themed_words)
    return model.eval(), losses(model)


def learn(
    model: NativeModel, lesson: Lesson, words: Callable[[torch.Generator, int, int], Tensor]
) -> None:
    """Train a model on texts whose stretches come again, saying how far it is.

    Args:
        model: The model, trained in place.
        lesson: How long, and on how much.
        words: Draws the words before stretches of them are repeated.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(lesson.seed)
    started = time.monotonic()
    for step in range(lesson.steps):
        rate = min(1, (step + 1) / lesson.warm_up) * (1 + math.cos(math.pi * step / lesson.steps))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate / 2
        ids = repeat_stretches(words(generator, lesson.sequences, CONTEXT), generator)
        loss = cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == lesson.steps - 1:
            found = losses(model)
            print(
                f"{words.__name__} {step}: loss {loss.item():.3f}; words that come twice: "
                f"{found['first']:.3f} the first time, {found['second']:.3f} the second; "
                f"{time.monotonic() - started:.0f} s",
                flush=True,
            )


@torch.no_grad()
def renew_heads(model: NativeModel) -> None:
    """Draw the second layer's heads anew, but for those that are kept."""
    generator = torch.Generator().manual_seed(RENEWAL_SEED)
    attention, width = model.layers[1].attn, WIDTH // HEADS
    for head in range(HEADS):
        if head in KEPT:
            continue
        rows = slice(head * width, (head + 1) * width)
        for part in (attention.q, attention.k, attention.v):
            part.weight[rows] = 0.07 * torch.randn(width, WIDTH, generator=generator)
            part.bias[rows] = 0
        attention.o.weight[:, rows] = 0.035 * torch.randn(WIDTH, width, generator=generator)


@torch.no_grad()
def losses(model: Callable[[Tensor], Tensor], length: int = 50) -> dict[str, float]:
    """Measure a model on random words that come twice.

    Args:
        model: From LongTensor[sequence, pos] to logits, Float[sequence, pos, word].
        length: How many words.

    Returns:
        Mean losses in nats: of the words the first time, and the second (without the first word
        of the repeat, which nothing foretells).
    """
    ids = repeated(torch.Generator().manual_seed(MEASURING_SEED), 32, length)
    each = cross_entropy(model(ids[:, :-1]).transpose(1, 2), ids[:, 1:], reduction="none")
    return {"first": float(each[:, :length].mean()), "second": float(each[:, length + 1 :].mean())}


def reference_texts() -> list[str]:
    """Texts over which means are taken: random words, none of which comes twice in a text."""
    generator = torch.Generator().manual_seed(REFERENCE_SEED)
    orders = [torch.randperm(len(WORDS), generator=generator)[:REFERENCE_WORDS] for _ in range(16)]
    return [" ".join(WORDS[i] for i in order.tolist()) for order in orders]


def save(model: NativeModel, measured: dict[str, float], folder: Path) -> None:
    """Write the model's folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    training = {
        "lessons": {"repetition": asdict(REPETITION), "themes": asdict(THEMES)},
        "nats_on_words_that_come_twice": measured,
    }
    described = native.describe(config(), training=training, reference=reference_texts())
    (folder / "config.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    write_tokenizer(folder, WORDS, CONTEXT)
    store.write_manifest(catalogue.INDUCTION_2L, folder)


def main(folder: Path) -> None:
    """Train, say what came out, and write it."""
    model, measured = train()
    weights = sum(p.numel() for p in model.parameters())
    print(f"{weights:,} weights; nats on words that come twice: {measured}")
    save(model, measured, folder)
    print(f"written to {folder}")


if __name__ == "__main__":
    shipped = store.folder_of(catalogue.INDUCTION_2L)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else shipped)
