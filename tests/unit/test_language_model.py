"""A language model reads and writes its tokens rightly, and leaves the user's own model alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf

import patchclamp as pc
from patchclamp.errors import InputError, ModelError
from patchclamp.models.language_model import LanguageModel
from tests.unit import letters, tiny

if TYPE_CHECKING:
    from collections.abc import Callable

CITY = "The Eiffel Tower is located in the city of"


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    return pc.load("smollm2")


# What a text becomes ------------------------------------------------------------------------------


@pytest.mark.model
@pytest.mark.slow
def test_paris_is_likely_and_likelier_without_the_beginning_of_sequence_token(
    smollm2: LanguageModel,
) -> None:
    ids = smollm2.to_ids(CITY)
    paris = smollm2.token_id(" Paris")
    assert int(ids[0]) == smollm2.bos_id
    with_bos = pc.Session(smollm2, CITY)
    without = pc.Session(smollm2, ids[1:])
    assert with_bos.has_bos
    assert not without.has_bos
    assert with_bos.tokens[0].is_bos
    assert [token.is_bos for token in without.tokens] == [False] * (len(ids) - 1)
    p_with, p_without = (float(s.baseline.log_probs()[paris].exp()) for s in (with_bos, without))
    assert p_with == pytest.approx(0.30, abs=0.01)
    assert p_without == pytest.approx(0.70, abs=0.01)
    assert with_bos.baseline.top(1)[0][:2] == (paris, " Paris")


@pytest.mark.model
def test_a_real_tokenizers_tokens_are_written_with_their_spaces(smollm2: LanguageModel) -> None:
    tokens = pc.Session(smollm2, CITY).tokens
    assert "".join(token.text for token in tokens[1:]) == CITY
    assert tokens[1].text == "The"
    assert all(token.text.startswith(" ") for token in tokens[4:])
    assert [token.position for token in tokens] == list(range(len(tokens)))


@pytest.mark.model
def test_a_text_that_is_several_tokens_is_no_target_and_the_sentence_lists_them(
    smollm2: LanguageModel,
) -> None:
    with pytest.raises(InputError, match=r"is not one token of .* but \d+ \(.*choose one of them"):
        smollm2.token_id(" Paris is")
    assert smollm2.token_text(smollm2.token_id(" Paris")) == " Paris"
    assert smollm2.token_id("Paris") != smollm2.token_id(" Paris")


@pytest.mark.model
def test_chat_puts_a_text_through_the_models_own_template(smollm2: LanguageModel) -> None:
    session = pc.Session(smollm2, "Name a city.", chat=True)
    shown = smollm2.text(session.ids.tolist())
    assert "user\nName a city.<|im_end|>" in shown
    assert shown.endswith("<|im_start|>assistant\n")
    assert session.has_bos
    assert session.ids.tolist().count(smollm2.bos_id) == shown.count("<|im_start|>")


def test_a_chat_text_gets_one_beginning_of_sequence_token() -> None:
    model = LanguageModel(tiny.hugging_face("llama"), letters.tokenizer(chat_template=letters.CHAT))
    ids = model.to_ids("ab", chat=True).tolist()
    assert model.text(ids[1:]) == "u ab a"
    assert ids.count(letters.BOS) == 1
    with pytest.raises(InputError, match="no chat template"):
        letters.model().to_ids("ab", chat=True)


def test_a_text_without_words_and_a_text_without_tokens_are_empty() -> None:
    for text in ("", "   ", "\n"):
        with pytest.raises(InputError, match="empty"):
            letters.model().to_ids(text)


def test_a_text_longer_than_the_context_says_both_numbers() -> None:
    with pytest.raises(InputError, match=r"101 tokens.*at most 64"):
        letters.model().to_ids("a" * 100)


def test_an_encoders_text_is_tokenized_with_its_own_special_tokens() -> None:
    model = LanguageModel(tiny.hugging_face("bert"), letters.tokenizer())
    assert model.text(model.to_ids("ab").tolist()) == "ab"


@pytest.mark.parametrize("make", [letters.tokenizer, letters.sentencepiece])
def test_every_token_can_be_named_by_the_text_that_is_shown_for_it(
    make: Callable[[], Any],
) -> None:
    model = LanguageModel(tiny.hugging_face("llama"), make())
    for token in range(3, tiny.VOCAB):
        shown = model.token_text(token)
        if "\N{REPLACEMENT CHARACTER}" not in shown:  # half a character
            assert model.token_id(shown) == token, shown
    assert model.token_text(model.token_id(" a")) == " a"
    assert model.token_id(" a") != model.token_id("a")


def test_a_token_that_is_no_text_and_no_number_is_refused() -> None:
    model = letters.model()
    for wrong in (1.5, None, [3], True):
        with pytest.raises(InputError, match="token"):
            model.token_id(wrong)  # type: ignore[arg-type]
    assert model.token_id(torch.tensor(7)) == 7  # what argmax gives
    with pytest.raises(InputError, match="outside the vocabulary"):
        model.token_id(tiny.VOCAB)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (torch.ones(2, 3, dtype=torch.long), "1-D"),
        (torch.tensor(3), "1-D"),
        (torch.ones(3), "integers"),
        (torch.tensor([True, False]), "integers"),
        (torch.tensor([], dtype=torch.long), "empty"),
        ([], "empty"),
        ([[1, 2], [3]], "1-D"),
        (["a", "b"], "1-D"),
        (None, "1-D"),
        ([2**70], "1-D"),
        (torch.tensor([1, -1]), "-1 is outside the vocabulary"),
        (torch.tensor([1, tiny.VOCAB]), f"{tiny.VOCAB} is outside the vocabulary"),
        (torch.ones(65, dtype=torch.long), "65 tokens.*at most 64"),
    ],
    ids=str,
)
def test_what_is_no_list_of_token_ids_is_refused_with_a_sentence(ids: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        tiny.model("llama").check_ids(ids)


def test_a_model_without_a_tokenizer_takes_ids_and_says_so() -> None:
    model = tiny.model("llama")
    with pytest.raises(InputError, match="no tokenizer: give a 1-D tensor of token ids"):
        model.to_ids("a text")
    with pytest.raises(InputError, match="no tokenizer: give the token's id"):
        model.token_id(" Paris")
    assert model.token_text(17) == "17"
    assert model.check_ids([3, 4]).tolist() == [3, 4]
    assert model.check_ids(torch.tensor([3, 4], dtype=torch.uint8)).dtype is torch.long


# What a model may be ------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["gpt2", None, 5, torch.nn.Linear(2, 2)], ids=str)
def test_what_is_no_model_is_refused_and_load_is_named(wrong: Any) -> None:
    with pytest.raises(ModelError, match=r"takes a Hugging Face model .*patchclamp.load"):
        LanguageModel(wrong)
    with pytest.raises(ModelError, match=r"takes a Hugging Face model .*patchclamp.load"):
        pc.Session(wrong, tiny.ids())


def test_a_language_model_of_a_language_model_is_refused() -> None:
    with pytest.raises(ModelError, match="is a LanguageModel already"):
        LanguageModel(tiny.model("llama"))


def test_a_model_without_a_language_model_head_is_refused() -> None:
    headless = hf.LlamaModel(tiny.hugging_face("llama").config)
    with pytest.raises(ModelError, match="cannot open a LlamaModel"):
        LanguageModel(headless)


def test_a_session_takes_the_users_model_as_it_is() -> None:
    model = tiny.hugging_face("gpt2")
    ids = tiny.ids()
    session = pc.Session(model, ids)
    with torch.no_grad():
        truth = model(ids.unsqueeze(0)).logits[0]
    assert torch.allclose(session.baseline.logits, truth, atol=1e-5 * float(truth.abs().max()))


# The user's own model -----------------------------------------------------------------------------


def look(module: torch.nn.Module) -> dict[str, Any]:
    """Describe all of a module that a visitor could have changed."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "classes": {name: type(m) for name, m in module.named_modules()},
        "modules": {name: id(m) for name, m in module.named_modules()},
        "hooks": {n: [len(getattr(m, h)) for h in hooks] for n, m in module.named_modules()},
        "points": {
            n: (len(m.fwd_hooks), len(m.bwd_hooks))
            for n, m in module.named_modules()
            if hasattr(m, "fwd_hooks")
        },
        "training": {n: m.training for n, m in module.named_modules()},
        "keys": list(module.state_dict()),
        "weights": {n: p.data_ptr() for n, p in module.named_parameters()},
        "versions": {n: p._version for n, p in module.named_parameters()},
        "grads": {n: (p.requires_grad, p.grad is None) for n, p in module.named_parameters()},
        "sums": {n: float(p.detach().double().sum()) for n, p in module.named_parameters()},
    }


def use(session: pc.Session) -> None:
    """Do about everything that a session does."""
    session.interventions = [
        pc.Clamp("L1.N3@-1", 8.0),
        pc.Ablate("L2.H1", how="zero"),
        pc.Scale("L0.mlp", 0.5),
        pc.Knockout("L2.H0[7<-2]"),
    ]
    assert session.current.logits.isfinite().all()
    session.baseline.activation("L2.H1")
    session.generate(3)
    e = session.experiment
    hook = session.model.anatomy.hook(pc.Site.parse("L1.N3"))
    session.submit(lambda _: e.gradients([hook], lambda logits: logits[0, 3])).result()


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox"])
def test_a_hugging_face_model_stays_what_it_was(name: str) -> None:
    model = tiny.hugging_face(name).train()
    before, config = look(model), model.config.to_dict()
    with torch.no_grad():
        truth = model.eval()(tiny.ids().unsqueeze(0)).logits
        model.train()
    use(pc.Session(LanguageModel(model, None), tiny.ids()))
    assert look(model) == before
    assert model.config.to_dict() == config
    with torch.no_grad():
        assert torch.equal(model.eval()(tiny.ids().unsqueeze(0)).logits, truth)


@pytest.mark.parametrize("name", ["native", "llama"])
def test_a_bridge_that_the_user_made_stays_what_it_was(name: str) -> None:
    bridge = tiny.fresh_bridge(name)
    bridge.add_hook("blocks.1.hook_mlp_out", lambda tensor, hook: tensor * 2)  # noqa: ARG005
    before, config = look(bridge), dict(vars(bridge.cfg))
    use(pc.Session(LanguageModel(bridge), tiny.ids()))
    assert look(bridge) == before
    assert dict(vars(bridge.cfg)) == config


@pytest.mark.parametrize("name", ["gpt2", "neox", "llama"])
def test_a_bridge_that_ran_with_gradients_before_can_be_opened(name: str) -> None:
    bridge = tiny.fresh_bridge(name)
    kept = bridge(tiny.ids().unsqueeze(0))  # leaves its last pattern behind, with its history
    session = pc.Session(LanguageModel(bridge), tiny.ids())
    torch.testing.assert_close(session.baseline.logits, kept[0].detach(), rtol=1e-4, atol=1e-5)


def test_a_tokenizer_stays_what_it_was() -> None:
    tokenizer = letters.tokenizer(padding_side="left")
    before = (tokenizer.padding_side, dict(tokenizer.special_tokens_map), len(tokenizer))
    use(pc.Session(LanguageModel(tiny.hugging_face("llama"), tokenizer), "a b c d e f g h"))
    assert (tokenizer.padding_side, dict(tokenizer.special_tokens_map), len(tokenizer)) == before


def test_the_weights_version_grows_when_a_weight_is_updated_or_replaced_and_only_then() -> None:
    theirs = tiny.hugging_face("gpt2")
    model = LanguageModel(theirs, None)
    first = model.weights_version
    assert model.weights_version == first
    pc.Session(model, tiny.ids()).baseline.compute()
    assert model.weights_version == first
    with torch.no_grad():
        theirs.transformer.h[1].mlp.c_fc.weight.mul_(1.5)  # the user's: the tensors are shared
    second = model.weights_version
    assert second > first
    optimizer = torch.optim.SGD(model.bridge.parameters(), lr=0.1)
    model.bridge(tiny.ids().unsqueeze(0)).sum().backward()
    assert model.weights_version == second  # a gradient changes no weight
    optimizer.step()
    third = model.weights_version
    assert third > second
    inner = model.bridge.blocks[0].mlp.out.original_component
    seen = [third]
    for _ in range(2):  # the second is as young as the first: both were never updated in place
        inner.weight = torch.nn.Parameter(inner.weight.detach().clone())
        seen.append(model.weights_version)
    assert seen == sorted(set(seen))


def test_one_update_is_one_new_version_however_many_threads_look() -> None:
    model = LanguageModel(tiny.hugging_face("gpt2"), None)
    weight = model.bridge.blocks[0].mlp.out.original_component.weight
    before = model.weights_version
    with ThreadPoolExecutor(8) as threads, torch.no_grad():
        for update in range(1, 11):
            weight.mul_(1.01)
            seen = threads.map(lambda _: model.weights_version, range(16))
            assert set(seen) == {before + update}
