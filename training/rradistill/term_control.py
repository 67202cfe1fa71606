"""The term-control layer: a layer over the query's terms that trains a BERT and is then dropped."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from bm25s.stopwords import STOPWORDS_EN
from torch import Tensor, nn
from transformers import BertForSequenceClassification, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput

from service.contract.encoding import TokenPair
from training.student import in_batches


class TermScores(NamedTuple):
    """What a student and its term-control layer say of a batch, raw logits, [B, 1] each."""

    logits: Tensor
    terms: Tensor


class TermControlLayer(nn.Module):
    """One transformer layer over [CLS] and the selected tokens, and a score from its [CLS].

    Source:
        Our reading of RRADistill (arXiv:2410.18097), of which only the abstract was at hand: it
        names the layer and the matching of terms, not their form.
    """

    def __init__(self, student: BertForSequenceClassification) -> None:
        super().__init__()
        config = student.config
        self.layer = nn.TransformerEncoderLayer(
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            dropout=config.hidden_dropout_prob,
            activation="gelu",
            layer_norm_eps=config.layer_norm_eps,
            batch_first=True,
        )
        self.score = nn.Linear(config.hidden_size, 1)

    def forward(self, states: Tensor, selected: Tensor) -> Tensor:
        """Return the scores of the terms, [B, 1].

        Args:
            states: The student's last states, [B, L, H].
            selected: Which tokens are terms, bool [B, L]; [CLS] is taken anyway.
        """
        kept = selected.clone()
        kept[:, 0] = True
        width = int(kept.sum(dim=1).max())
        # Only [CLS] is scored and the layer knows no places: the terms' order is of no account.
        order = kept.long().argsort(dim=1, descending=True, stable=True)[:, :width]  # [B, S]
        terms = states.gather(1, order[:, :, None].expand(-1, -1, states.shape[2]))  # [B, S, H]
        found = self.layer(terms, src_key_padding_mask=~kept.gather(1, order))  # [B, S, H]
        scores: Tensor = self.score(found[:, 0])
        return scores  # [B, 1]


class TermControlled(nn.Module):
    """A student with a term-control layer; called without `terms` it is the student alone."""

    def __init__(self, student: BertForSequenceClassification, excluded: Tensor) -> None:
        """Take a student.

        Args:
            student: The student; its own weights and scores are left as they are.
            excluded: Ids that are no terms, as `excluded_ids` has them.
        """
        super().__init__()
        self.student = student
        self.term_control = TermControlLayer(student)
        self.excluded: Tensor
        self.register_buffer("excluded", excluded, persistent=False)

    def forward(
        self, *, terms: bool = False, **batch: Any
    ) -> SequenceClassifierOutput | TermScores:
        """Return the student's output, or its logits and those of the terms."""
        if not terms:
            alone: SequenceClassifierOutput = self.student(**batch)
            return alone
        found = self.student(**batch, output_hidden_states=True)
        selected = select_terms(
            batch["input_ids"], batch["attention_mask"], batch["token_type_ids"], self.excluded
        )
        return TermScores(found.logits, self.term_control(found.hidden_states[-1], selected))


def select_terms(ids: Tensor, mask: Tensor, segments: Tensor, excluded: Tensor) -> Tensor:
    """Return which tokens are terms: the query's, and the document's that the query has, too.

    Args:
        ids: Token ids, [B, L] int64.
        mask: 1 where there is a token, [B, L] int64.
        segments: 0 in `[CLS] query [SEP]`, 1 in the document, [B, L] int64.
        excluded: Ids that are no terms: specials and stop words, [E] int64.

    Returns:
        bool [B, L].
    """
    candidates = mask.bool() & ~torch.isin(ids, excluded)  # [B, L]
    query = candidates & (segments == 0)  # [B, L]
    in_query = ((ids[:, :, None] == ids[:, None, :]) & query[:, None, :]).any(dim=2)  # [B, L]
    return candidates & in_query


def excluded_ids(tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Return the ids of special tokens and of the 33 English stop words that Lucene has, int64."""
    words = tokenizer.convert_tokens_to_ids(list(STOPWORDS_EN))
    known = {number for number in words if number != tokenizer.unk_token_id}
    return torch.tensor(sorted(known | set(tokenizer.all_special_ids)))


def score_with_terms(
    model: nn.Module, pairs: list[TokenPair], *, rows: int
) -> tuple[Tensor, Tensor]:
    """Return the raw logits of a student and of its term-control layer, float32 [N] each.

    Args:
        model: A `TermControlled`, on any device.
        pairs: Token pairs, at least one.
        rows: Pairs a call.
    """

    def run(batch: dict[str, Tensor]) -> Tensor:
        return torch.cat(model(terms=True, **batch), dim=1).float()  # [B, 2]

    device = next(model.parameters()).device
    both = in_batches(pairs, run, rows=rows, device=device)  # [N, 2]
    return both[:, 0], both[:, 1]
