"""Teachers that score a query's candidates: bi-encoders, cross-encoders and decoders by name."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BatchEncoding,
    PreTrainedTokenizerBase,
)

from service.contract.checkpoint import Card, read_card
from service.contract.template import document_text
from service.contract.types import Float32s, RankingExample
from training.baselines.scorers import Way, way_of
from training.elsewhere import RankingsFile, RemoteTeacher, ScoresFile
from training.recipe import LabelRecipe, RecipeError
from training.student import LOAD_ERRORS, resolve_base


class Teacher(Protocol):
    """Scores examples; one float32 array an example, one score a candidate."""

    def score(self, examples: Sequence[RankingExample]) -> list[Float32s]:
        """Return the raw scores of each example's candidates."""
        ...


def teacher_of(recipe: LabelRecipe) -> Teacher:
    """Return the recipe's teacher: a model, a server or a file.

    Raises:
        RecipeError: It cannot be loaded or read.
    """
    if recipe.remote is not None:
        return RemoteTeacher(recipe.teacher, recipe.remote)
    if recipe.teacher_kind == "scores":
        return ScoresFile(Path(recipe.teacher))
    if recipe.teacher_kind == "rankings":
        return RankingsFile(Path(recipe.teacher))
    if recipe.teacher_kind == "prompted":
        # Imported now: prompted rankers rank with BM25 first, which stands beside a bi-encoder.
        from training.prompting.prompted import PromptedTeacher

        return PromptedTeacher(Path(recipe.teacher))
    return load_teacher(recipe)


def load_teacher(recipe: LabelRecipe) -> Teacher:
    """Return the recipe's teacher on the best device there is.

    Raises:
        RecipeError: It cannot be loaded, or has another number of labels than one.
    """
    try:
        if recipe.teacher_kind == "bi-encoder":
            return BiEncoder(
                recipe.teacher, max_length=recipe.max_length, batch_tokens=recipe.batch_tokens
            )
        card = read_card(Path(recipe.teacher))
        if (way := way_of(card.template)) is not None:
            return DecoderTeacher(recipe, card, way)
        return CrossEncoder(recipe)
    except LOAD_ERRORS as error:
        raise RecipeError(f"teacher {recipe.teacher!r} cannot be loaded: {error}") from error


class BiEncoder:
    """Cosine of mean-pooled embeddings; each distinct text of a call is embedded once."""

    def __init__(self, base: str, *, max_length: int, batch_tokens: int) -> None:
        """Load a checkpoint.

        Args:
            base: A folder, a hub name or the packaged MiniLM.
            max_length: Tokens of a text; longer ones are cut.
            batch_tokens: Most tokens of a call, padding included.

        Raises:
            RecipeError: The packaged weights are not there.
        """
        path = resolve_base(base)
        self._tokenizer = AutoTokenizer.from_pretrained(path)  # type: ignore[no-untyped-call]
        self._device = _device()
        self.model = AutoModel.from_pretrained(path).to(self._device).eval()
        self._max_length = readable(self.model, max_length)
        self._batch_tokens = batch_tokens

    def score(self, examples: Sequence[RankingExample]) -> list[Float32s]:
        """Return the cosine of each candidate with its query, in [-1, 1]."""
        texts = {example.query: None for example in examples} | {
            document_text(candidate): None
            for example in examples
            for candidate in example.candidates
        }
        rows = {text: row for row, text in enumerate(texts)}
        embeddings = self.embed(list(texts))  # [T, H]
        scores = []
        for example in examples:
            places = [rows[document_text(candidate)] for candidate in example.candidates]
            cosines = embeddings[places] @ embeddings[rows[example.query]]  # [N]
            scores.append(cosines.cpu().numpy())
        return scores

    def embed(self, texts: list[str]) -> Tensor:
        """Return the texts' normalised embeddings, float32 [T, H]."""
        encoded = self._tokenizer(
            texts, truncation=True, max_length=self._max_length, split_special_tokens=True
        )
        result = torch.empty(len(texts), self.model.config.hidden_size, device=self._device)
        for places in batches(encoded["input_ids"], self._batch_tokens):
            batch = _pad(self._tokenizer, encoded, places, self._device)
            with torch.inference_mode():
                states = self.model(**batch).last_hidden_state.float()  # [B, L, H]
            mask = batch["attention_mask"][:, :, None]  # [B, L, 1]
            pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            result[places] = normalize(pooled, dim=1)
        return result


class CrossEncoder:
    """The raw logit of a sequence-classification checkpoint with one label.

    A pair that is too long is cut where it is longest, as sentence-transformers does.
    """

    def __init__(self, recipe: LabelRecipe) -> None:
        base = resolve_base(recipe.teacher)
        self._tokenizer = AutoTokenizer.from_pretrained(base)  # type: ignore[no-untyped-call]
        self._device = _device()
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            base, output_loading_info=True
        )
        if missing := sorted(loading["missing_keys"]):
            raise RecipeError(f"teacher {recipe.teacher!r} lacks {', '.join(missing)}")
        if model.config.num_labels != 1:
            raise RecipeError(
                f"teacher {recipe.teacher!r} has {model.config.num_labels} labels; a ranker has 1"
            )
        self.model: nn.Module = model.to(self._device).eval()
        self._max_length = readable(model, recipe.max_length)
        self._batch_tokens = recipe.batch_tokens

    def score(self, examples: Sequence[RankingExample]) -> list[Float32s]:
        """Return the raw logit of each candidate."""
        encoded = self._tokenizer(
            [example.query for example in examples for _ in example.candidates],
            [document_text(candidate) for example in examples for candidate in example.candidates],
            truncation="longest_first",
            max_length=self._max_length,
            split_special_tokens=True,
        )
        flat = np.empty(len(encoded["input_ids"]), dtype=np.float32)
        for places in batches(encoded["input_ids"], self._batch_tokens):
            with torch.inference_mode():
                logits = self.model(**_pad(self._tokenizer, encoded, places, self._device)).logits
            flat[places] = logits[:, 0].float().cpu().numpy()
        ends = np.cumsum([len(example.candidates) for example in examples])
        return np.split(flat, ends[:-1])


class DecoderTeacher:
    """The raw logit of a checkpoint of `training sft`, on the ids that it was trained with.

    Its own limits hold, not the recipe's `max_length`.
    """

    def __init__(self, recipe: LabelRecipe, card: Card, way: Way) -> None:
        model, self._tokenizer, self._encoder = way.load(Path(recipe.teacher), card)
        self.model: nn.Module = nn.Module.to(model, _device())
        self._way = way
        self._batch_tokens = recipe.batch_tokens

    def score(self, examples: Sequence[RankingExample]) -> list[Float32s]:
        """Return the raw logit of each candidate."""
        pairs = [
            pair
            for example in examples
            for pair in self._encoder.encode(example.query, example.candidates)
        ]
        flat = np.empty(len(pairs), dtype=np.float32)
        for places in batches(pairs, self._batch_tokens):
            chunk = [pairs[place] for place in places]
            with torch.inference_mode():
                found = self._way.scorer(self.model, self._tokenizer, len(chunk))(chunk)
            flat[places] = found.cpu().numpy()
        ends = np.cumsum([len(example.candidates) for example in examples])
        return np.split(flat, ends[:-1])


def readable(model: nn.Module, max_length: int) -> int:
    """Return `max_length`, or less where a model's table of positions ends before."""
    for name, part in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding):
            # RoBERTa counts from behind its padding's place.
            first = 0 if part.padding_idx is None else part.padding_idx + 1
            return min(max_length, part.num_embeddings - first)
    return max_length


def batches(rows: Sequence[Sized], batch_tokens: int) -> list[list[int]]:
    """Return row numbers in batches of similar length, each at most batch_tokens when padded.

    A batch's longest row is at most a fifth longer than its shortest, or two tokens: whatever the
    lengths, less than a tenth of a long batch is padding.
    """
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    found: list[list[int]] = []
    longest = 0
    for place in order:
        length = len(rows[place])
        if found and length <= longest and length * (len(found[-1]) + 1) <= batch_tokens:
            found[-1].append(place)
        else:
            found.append([place])
            longest = length + max(2, length // 5)
    return found


def _pad(
    tokenizer: PreTrainedTokenizerBase,
    encoded: BatchEncoding,
    places: list[int],
    device: torch.device,
) -> BatchEncoding:
    rows = {name: [values[place] for place in places] for name, values in encoded.items()}
    # No advice to tokenise while padding: batches are made of texts that are tokenised already.
    tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
    return tokenizer.pad(rows, return_tensors="pt").to(device)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
