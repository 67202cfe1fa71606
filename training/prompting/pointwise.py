"""Pointwise prompting: each document is judged alone, by probabilities and not by what is said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.figures import Floats
from training.prompting.question import Choose, Continue
from training.prompting.steps import Steps

YES_NO = """\
Document: {document}

Query: {query}

Does the document answer the query? Say Yes or No.
Answer:"""

LIKELIHOOD = (
    "Document: {document}\nWhat somebody who looks for this document types into a search engine:"
)


def yes_no(query: str, documents: Sequence[str]) -> Steps[Floats]:
    """Return log p(Yes) - log p(No) of each document, the log odds between the two.

    Source:
        Liang et al. 2022, arXiv:2211.09110, relevance generation; the wording is ours.
    """
    answers = yield [
        Choose(YES_NO.format(query=query, document=document), ("Yes", "No"))
        for document in documents
    ]
    return np.array([answer.logs[0] - answer.logs[1] for answer in answers])


def likelihood(query: str, documents: Sequence[str]) -> Steps[Floats]:
    """Return the mean log p of the query's tokens after each document.

    Source:
        Sachan et al. 2022, arXiv:2204.07496, eq. 1; the wording is ours.
    """
    answers = yield [
        Continue(LIKELIHOOD.format(document=document), f" {query}") for document in documents
    ]
    return np.array([answer.logs[0] for answer in answers])
