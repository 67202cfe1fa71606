"""Permutations as models write them: well, badly, and anyhow."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from training.prompting.permutation import read_permutation

PIECES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["[", "]", " > ", "[1] > ", "</think>", "<think>", "\n", "1. ", "[2, 3]", "-"]),
    st.integers(-3, 40).map(str),
    st.integers(-3, 40).map("[{}]".format),
)


@given(st.lists(PIECES, max_size=40).map("".join), st.integers(0, 12))
@example("9" * 5000, 3)
@example("[" + "1" * 5000 + "]", 3)
@example("٣ ² ३ [٢]", 5)
@example("\ud800[1]", 2)
def test_whatever_is_written_each_document_is_there_once(text: str, shown: int) -> None:
    found = read_permutation(text, shown)
    assert sorted((*found.ranked, *found.omitted)) == list(range(shown))
    assert list(found.omitted) == sorted(found.omitted)


@given(st.permutations(range(9)), st.integers(0, 9), st.sampled_from([" > ", ", ", "\n", " "]))
def test_a_clean_answer_is_read_as_it_stands(order: list[int], kept: int, between: str) -> None:
    text = between.join(f"[{place + 1}]" for place in order[:kept])
    found = read_permutation(text, 9)
    assert found.ranked == tuple(order[:kept])
    assert set(found.omitted) == set(order[kept:])


@pytest.mark.parametrize(
    ("text", "ranked"),
    [
        ("[2] > [1] > [3]", (1, 0, 2)),
        ("2 > 1 > 3", (1, 0, 2)),
        ("2,1", (1, 0)),
        ("[2, 1]", (1, 0)),
        ("1. [3]\n2. [1]", (2, 0)),
        ("[2] > [2] > [9] > [0] > [1]", (1, 0)),
        ("[03] > [1]", (2, 0)),
        ("<think>[1] is good, [2] less</think>[2] > [1]", (1, 0)),
        ("<think>[1] or [2]", ()),
        ("scores: 2 has 0.31, 1 has 2.5", (1, 0)),
        ("Sorry, I cannot rank these.", ()),
        ("", ()),
    ],
)
def test_what_models_write_is_understood(text: str, ranked: tuple[int, ...]) -> None:
    assert read_permutation(text, 3).ranked == ranked
