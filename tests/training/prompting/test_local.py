"""A local model's answers against transformers, one row at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import normalizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training.decoders import tiny_mistral
from training.prompting.local import LocalModel
from training.prompting.question import AnswerError, Choose, Continue, Question, Write, in_order
from training.prompting.recipe import Local
from training.recipe import RecipeError

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content | trim }} {% endfor %}"
    "{% if add_generation_prompt %}[bot]{% endif %}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mistral(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def local(base: Path) -> LocalModel:
    return LocalModel(Local(base=str(base), batch_tokens=64))


class ByHand:
    """One row a call, without padding or cache."""

    def __init__(self, base: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base)  # type: ignore[no-untyped-call]
        self.model: Any = AutoModelForCausalLM.from_pretrained(base)
        self.model.train(False)

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def logs(self, given: list[int], wanted: list[int]) -> list[float]:
        with torch.no_grad():
            logits = self.model(torch.tensor([[*given, *wanted]])).logits[0].log_softmax(dim=1)
        return [float(logits[len(given) + n - 1, one]) for n, one in enumerate(wanted)]

    def greedy(self, given: list[int], tokens: int) -> list[int]:
        ids = list(given)
        for _ in range(tokens):
            with torch.no_grad():
                ids.append(int(self.model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == self.tokenizer.eos_token_id:
                return ids[len(given) : -1]
        return ids[len(given) :]


PROMPTS = ["the cat", "water in the kettle is a dog of stone", "to", "lamp " * 12]


def test_texts_are_written_as_one_at_a_time(base: Path, local: LocalModel) -> None:
    hand = ByHand(base)
    answers = in_order(local.ask([Write(prompt, 3 + n) for n, prompt in enumerate(PROMPTS)]))
    for n, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
        given = [1, *hand.ids(prompt)]
        expected = hand.greedy(given, 3 + n)
        assert answer.text == hand.tokenizer.decode(expected, skip_special_tokens=True)
        assert (answer.prompt_tokens, answer.completion_tokens) == (len(given), len(expected))


def with_blanks_doubled(folder: Path) -> Path:
    """Write a model whose tokenizer, as Llama 2's, puts a blank before a text that has one."""
    hand = ByHand(tiny_mistral(folder))
    backend = hand.tokenizer.backend_tokenizer
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    hand.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("doubled", [False, True])
def test_a_continuation_is_weighed_as_a_part_of_the_whole(doubled: bool, tmp_path: Path) -> None:
    base = with_blanks_doubled(tmp_path) if doubled else tiny_mistral(tmp_path)
    hand, local = ByHand(base), LocalModel(Local(base=str(base), batch_tokens=64))
    assert (hand.ids(" water") == hand.ids("water")) != doubled
    prompts = [prompt.strip() for prompt in PROMPTS]
    answers = in_order(local.ask([Continue(prompt, " boil water") for prompt in prompts]))
    for prompt, answer in zip(prompts, answers, strict=True):
        given, whole = hand.ids(prompt), hand.ids(f"{prompt} boil water")
        assert whole[: len(given)] == given
        logs = hand.logs([1, *given], whole[len(given) :])
        assert answer.logs == pytest.approx((sum(logs) / len(logs),), abs=1e-4)
        assert answer.prompt_tokens == 1 + len(whole)


def test_a_choice_is_weighed_in_all_its_tokens(base: Path, local: LocalModel) -> None:
    hand = ByHand(base)
    mixed: list[Question] = [
        Choose(PROMPTS[0], ("Yes", "No")),
        Write("the", 2),
        Choose(PROMPTS[3], ("A", "B")),
    ]
    answers = in_order(local.ask(mixed))
    for question, answer in ((mixed[0], answers[0]), (mixed[2], answers[2])):
        assert isinstance(question, Choose)
        given = [1, *hand.ids(question.prompt)]
        for word, log in zip(question.choices, answer.logs, strict=True):
            ways = {tuple(hand.ids(text)) for text in (word, f" {word}")}
            total = torch.tensor([sum(hand.logs(given, [*ids])) for ids in ways]).logsumexp(0)
            assert log == pytest.approx(float(total), abs=1e-4)


def test_a_chat_template_is_laid_around_the_question(tmp_path: Path) -> None:
    folder = tiny_mistral(tmp_path / "lm")
    hand = ByHand(folder)
    hand.tokenizer.chat_template = TEMPLATE
    hand.tokenizer.save_pretrained(folder)
    ((_, answer),) = LocalModel(Local(base=str(folder))).ask([Write("the cat", 4)])
    given = [*hand.ids("[user] "), *hand.ids("the cat"), *hand.ids(" [bot]")]
    assert answer.prompt_tokens == len(given)
    assert answer.text == hand.tokenizer.decode(hand.greedy(given, 4), skip_special_tokens=True)


def test_special_tokens_in_a_question_are_plain_text(base: Path, local: LocalModel) -> None:
    ((_, answer),) = local.ask([Write("the </s> cat", 1)])
    assert answer.prompt_tokens > 1 + len(ByHand(base).ids("the </s> cat"))


def test_a_question_that_is_too_long_is_refused(local: LocalModel) -> None:
    with pytest.raises(AnswerError, match="is over the model's 256; lower document_words"):
        list(local.ask([Write("cat " * 300, 4)]))


def test_a_model_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be loaded"):
        LocalModel(Local(base=str(tmp_path)))
