"""Metrics against trec_eval (through ir-measures) and against values computed by hand."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import ir_measures
import pytest
from ir_measures import RR, Qrel, ScoredDoc, nDCG

from service.contract.metrics import PairCounts, ndcg, pair_counts, pnr, reciprocal_rank

DEPTHS = (1, 3, 5, 10, 100)
EXPONENTIAL = {1: 1, 2: 3, 3: 7}


@dataclass(frozen=True, slots=True)
class Case:
    """One query: every third or so candidate unjudged, some judged documents not retrieved."""

    query_id: str
    judged: dict[str, int]
    candidates: dict[str, float]

    @property
    def grades(self) -> list[int]:
        return [self.judged.get(document, 0) for document in self.candidates]

    @property
    def scores(self) -> list[float]:
        return list(self.candidates.values())

    def run(self) -> list[ScoredDoc]:
        """Return the ranking with score = n - rank: trec_eval breaks ties its own way."""
        ranked = sorted(self.candidates, key=lambda document: -self.candidates[document])
        n = len(ranked)
        return [ScoredDoc(self.query_id, doc, n - rank) for rank, doc in enumerate(ranked, 1)]

    def qrels(self) -> list[Qrel]:
        return [Qrel(self.query_id, document, grade) for document, grade in self.judged.items()]


def random_case(number: int) -> Case:
    draw = random.Random(number)
    documents = [f"d{i}" for i in range(draw.randint(1, 40))]
    top = draw.choice((0, 1, 3, 3))
    lowest = draw.choice((0, 0, -2))
    judged = {doc: draw.randint(lowest, top) for doc in documents if draw.random() < 0.7}
    judged[documents[0]] = top  # trec_eval crashes where all grades of a query are negative
    chosen = draw.sample(documents, draw.randint(1, len(documents)))
    digits = draw.choice((0, 1, 6))  # few digits make ties
    candidates = {document: round(draw.gauss(0, 2), digits) for document in chosen}
    return Case(f"q{number}", judged, candidates)


CASES = [random_case(number) for number in range(200)]


def trec_eval(measure: ir_measures.Measure) -> dict[str, float]:
    qrels = [qrel for case in CASES for qrel in case.qrels()]
    run = [document for case in CASES for document in case.run()]
    return {m.query_id: m.value for m in ir_measures.iter_calc([measure], qrels, run)}


def test_the_cases_hold_what_makes_metrics_differ() -> None:
    assert any(len(set(case.scores)) < len(case.scores) for case in CASES)
    assert any(max(case.judged.values()) == 0 for case in CASES)
    assert any(min(case.judged.values()) < 0 for case in CASES)
    assert any(case.candidates.keys() - case.judged.keys() for case in CASES)
    assert any(case.judged.keys() - case.candidates.keys() for case in CASES)


@pytest.mark.parametrize("k", DEPTHS)
def test_linear_ndcg_is_trec_evals(k: int) -> None:
    expected = trec_eval(nDCG @ k)
    for case in CASES:
        found = ndcg(case.grades, case.scores, k, judged=list(case.judged.values()))
        assert found == pytest.approx(expected[case.query_id], abs=1e-12)


@pytest.mark.parametrize("k", DEPTHS)
def test_exponential_ndcg_is_trec_evals_on_mapped_gains(k: int) -> None:
    expected = trec_eval(nDCG(gains=EXPONENTIAL) @ k)
    for case in CASES:
        judged = list(case.judged.values())
        found = ndcg(case.grades, case.scores, k, gain="exponential", judged=judged)
        assert found == pytest.approx(expected[case.query_id], abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("relevant_from", [1, 2])
def test_reciprocal_rank_is_trec_evals(k: int, relevant_from: int) -> None:
    expected = trec_eval(RR(rel=relevant_from) @ k)
    for case in CASES:
        found = reciprocal_rank(case.grades, case.scores, k, relevant_from=relevant_from)
        assert found == pytest.approx(expected[case.query_id], abs=1e-12)


def test_ndcg_by_hand() -> None:
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    assert ndcg([1, 3, 2], [0.9, 0.5, 0.1], 3) == pytest.approx(
        (1 + 3 / math.log2(3) + 2 / math.log2(4)) / ideal
    )
    ideal = 7 + 3 / math.log2(3)
    assert ndcg([1, 3, 2], [0.9, 0.5, 0.1], 2, gain="exponential") == pytest.approx(
        (1 + 7 / math.log2(3)) / ideal
    )


def test_missed_documents_lower_ndcg_only_where_they_are_told() -> None:
    assert ndcg([1.0], [0.3], 10) == 1.0
    assert ndcg([1.0], [0.3], 10, judged=[1.0, 3.0]) == pytest.approx(1 / (3 + 1 / math.log2(3)))


def test_ndcg_is_zero_without_a_relevant_document() -> None:
    assert ndcg([0, 0, -1], [0.3, 0.2, 0.1], 10) == 0.0
    assert ndcg([], [], 10) == 0.0


def test_tied_scores_rank_in_input_order() -> None:
    assert ndcg([1, 0], [0.5, 0.5], 1) == 1.0
    assert ndcg([0, 1], [0.5, 0.5], 1) == 0.0
    assert reciprocal_rank([0, 0, 1], [0.5, 0.5, 0.5]) == pytest.approx(1 / 3)


def test_reciprocal_rank_is_zero_beyond_the_cut() -> None:
    grades, scores = [0] * 10 + [1], list(range(11, 0, -1))
    assert reciprocal_rank(grades, scores) == 0.0
    assert reciprocal_rank(grades, scores, 11) == pytest.approx(1 / 11)
    assert reciprocal_rank([], []) == 0.0


def test_pair_counts_by_hand() -> None:
    # By grade (2, 1, 0, 0): 5 pairs with a better and a worse document, each seen once.
    # Scores (3, 4, 1, 3): 2>1 wrong, 2>0 right, 2>0 tied, 1>0 right, 1>0 right.
    assert pair_counts([2, 1, 0, 0], [3, 4, 1, 3]) == PairCounts(concordant=3, discordant=1)
    assert pair_counts([2, 1, 0, 0], [3, 4, 1, 3]).pnr == 3.0


def test_equal_grades_and_equal_scores_make_no_pair() -> None:
    assert pair_counts([1, 1, 1], [3, 2, 1]) == PairCounts()
    assert pair_counts([1, 2, 3], [5, 5, 5]) == PairCounts()
    assert pair_counts([], []) == PairCounts()


def test_pnr_pools_the_pairs_of_queries_and_never_pairs_across_them() -> None:
    queries = [([1, 0], [0.1, 0.9]), ([2, 1, 0], [0.9, 0.5, 0.1])]
    assert pnr(queries) == 3.0  # 3 right, 1 wrong; the mean of ratios would be infinite
    assert pair_counts(*queries[0]) + pair_counts(*queries[1]) == PairCounts(3, 1)


def test_pnr_of_a_faultless_ranking_is_infinite() -> None:
    assert pnr([([1, 0], [0.9, 0.1])]) == math.inf


def test_pnr_of_a_wholly_wrong_ranking_is_zero() -> None:
    assert pnr([([1, 0], [0.1, 0.9])]) == 0.0


def test_pnr_without_any_pair_is_nan() -> None:
    assert math.isnan(pnr([]))
    assert math.isnan(pnr([([1, 1], [0.9, 0.1]), ([1], [0.5])]))
