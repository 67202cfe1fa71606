"""A causal language model in this process, answering questions in batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from training.prompting.prompt_ids import PromptIds
from training.prompting.question import Answer, AnswerError, Choose, Continue, Question, Write
from training.prompting.recipe import Local
from training.recipe import RecipeError
from training.student import LOAD_ERRORS
from training.teacher import batches

QUESTIONS_A_CHUNK = 64
"""Questions answered before the first of them is handed on."""

Row = tuple[list[int], list[int]]
"""Ids that are given, and ids whose log p is wanted."""


class LocalModel:
    """Answers by greedy decoding and by exact log probabilities."""

    def __init__(self, recipe: Local) -> None:
        """Load a model on the best device there is.

        Raises:
            RecipeError: It cannot be loaded.
        """
        self.name = recipe.identity()
        self._batch_tokens = recipe.batch_tokens
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(recipe.base)  # type: ignore[no-untyped-call]
            model = AutoModelForCausalLM.from_pretrained(recipe.base, dtype=dtype)
        except LOAD_ERRORS as error:
            raise RecipeError(f"model {recipe.base!r} cannot be loaded: {error}") from error
        self._model: PreTrainedModel = torch.nn.Module.to(model, device)
        self._model.train(False)
        self._ids = PromptIds(tokenizer, getattr(model.generation_config, "eos_token_id", None))
        self._longest = getattr(model.config, "max_position_embeddings", None)

    @torch.inference_mode()
    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Yield each answer, behind its question's place.

        Raises:
            AnswerError: A question is longer than the model can read.
        """
        for start in range(0, len(questions), QUESTIONS_A_CHUNK):
            chunk = questions[start : start + QUESTIONS_A_CHUNK]
            writes = [question for question in chunk if isinstance(question, Write)]
            others = [question for question in chunk if not isinstance(question, Write)]
            written, weighed = iter(self._write(writes)), iter(self._weigh(others))
            answers = [next(written if isinstance(one, Write) else weighed) for one in chunk]
            yield from enumerate(answers, start)

    def _write(self, questions: Sequence[Write]) -> list[Answer]:
        prompts = [self._ids.asked(question.prompt) for question in questions]
        answers: dict[int, Answer] = {}
        for places in batches(prompts, self._batch_tokens):
            longest = max(questions[place].max_tokens for place in places)
            inputs = self._padded([prompts[place] for place in places], longest)
            del inputs["position_ids"]  # `generate` counts on from the mask, not from these
            width = inputs["input_ids"].shape[1]
            found = self._model.generate(  # type: ignore[operator]
                **inputs,
                max_new_tokens=longest,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=self._ids.pad,
                eos_token_id=self._ids.ends or None,
            )
            for place, row in zip(places, found[:, width:].tolist(), strict=True):
                ids = self._ids.before_end(row)[: questions[place].max_tokens]
                tokens = len(prompts[place]), len(ids)
                answers[place] = Answer(self._ids.text(ids), (), *tokens)
        return [answers[place] for place in range(len(questions))]

    def _weigh(self, questions: Sequence[Choose | Continue]) -> list[Answer]:
        rows = [row for question in questions for row in self._rows(question)]
        logs = iter(self._logs(rows))
        return [self._weighed(question, logs) for question in questions]

    def _rows(self, question: Choose | Continue) -> list[Row]:
        if isinstance(question, Continue):
            return [self._ids.continued(question.prompt, question.text)]
        prompt = self._ids.asked(question.prompt)
        return [(prompt, tail) for tails in self._ids.choices(question.choices) for tail in tails]

    def _weighed(self, question: Choose | Continue, logs: Iterator[Tensor]) -> Answer:
        if isinstance(question, Continue):
            given, wanted = self._ids.continued(question.prompt, question.text)
            return Answer("", (float(next(logs).mean()),), len(given) + len(wanted))
        found = []
        for tails in self._ids.choices(question.choices):
            ways = torch.stack([next(logs).sum() for _ in tails])  # [W]
            found.append(float(ways.logsumexp(dim=0)))
        return Answer("", tuple(found), len(self._ids.asked(question.prompt)))

    def _logs(self, rows: Sequence[Row]) -> list[Tensor]:
        """Return log p of each row's wanted ids, [n] each; equal inputs are run once."""
        users: dict[tuple[int, ...], list[int]] = {}
        for place, (given, wanted) in enumerate(rows):
            users.setdefault((*given, *wanted[:-1]), []).append(place)
        inputs = list(users)
        logs: dict[int, Tensor] = {}
        for places in batches(inputs, self._batch_tokens):
            chunk = [inputs[place] for place in places]
            kept = max(len(rows[user][1]) for key in chunk for user in users[key])
            padded = self._padded([list(key) for key in chunk], 0)
            logits = self._model(**padded, use_cache=False, logits_to_keep=kept).logits
            found = logits.float().log_softmax(dim=2)  # [B, kept, V]
            for key, row in zip(chunk, found, strict=True):
                for user in users[key]:
                    tail = torch.tensor(rows[user][1], device=row.device)  # [n]
                    logs[user] = row[-len(tail) :].gather(1, tail[:, None])[:, 0].cpu()
        return [logs[place] for place in range(len(rows))]

    def _padded(self, rows: Sequence[list[int]], more: int) -> dict[str, Tensor]:
        """Return the rows as a batch, padded on the left, with positions as if they were not."""
        width = max(map(len, rows))
        if self._longest is not None and width + more > self._longest:
            raise AnswerError(
                f"a question of {width} tokens, with {more} to be written, is over the model's "
                f"{self._longest}; lower document_words or window"
            )
        ids = torch.full((len(rows), width), self._ids.pad)  # [B, L]
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, width - len(row) :] = torch.tensor(row)
            mask[place, width - len(row) :] = 1
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        batch = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        return {name: tensor.to(self._model.device) for name, tensor in batch.items()}
