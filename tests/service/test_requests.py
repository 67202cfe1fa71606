"""What is read of any body at all, in every dialect: a request, or an error that tells nothing."""

import json
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.api.dialect import Dialect
from service.api.faults import ECHOED
from service.api.problems import problem_response
from service.api.routes import ROUTES
from service.api.serving import Read, read_request
from service.ranking.errors import InvalidRequestError

PATHS = {path: dialects for dialects, path in {r.dialects: r.path for r in ROUTES}.items()}
"""One path for each choice of dialects."""

MAX_QUERY_CHARS = 50
MAX_PROBLEM_BYTES = 20_000

TEXT = "sesame"
"""In every string that is sent, but names and what may be repeated."""


def read(path: str, body: bytes) -> Read | InvalidRequestError:
    """Return the request or the error, which is small and tells nothing of what was sent."""
    try:
        return read_request(body, PATHS[path], max_query_chars=MAX_QUERY_CHARS)
    except InvalidRequestError as error:
        assert_discreet(error)
        return error


def assert_discreet(error: InvalidRequestError) -> None:
    problem = problem_response(
        status=error.status,
        error_type=error.error_type,
        detail=error.message,
        request_id="",
        faults=error.faults,
    )
    assert len(problem.body) < MAX_PROBLEM_BYTES
    assert TEXT.encode() not in problem.body
    assert error.status in (400, 422)


def assert_asks(found: Read | InvalidRequestError) -> None:
    """Hold what a request asks against what the ranker takes."""
    if isinstance(found, InvalidRequestError):
        return
    assert found.questions
    for question in found.questions:
        assert question.query.strip()
        assert len(question.query) <= MAX_QUERY_CHARS
        assert 1 <= len(question.candidates) <= 1000
        assert question.top_k is None or question.top_k >= 1
        texts = (question.query, *((one.title + one.summary) for one in question.candidates))
        "".join(texts).encode()  # nothing in it that the tokenizer cannot read


def names_of(*dialects: Dialect[Any]) -> list[str]:
    """Return the names of all fields, aliases too."""
    schemas = [dialect.request.model_json_schema() for dialect in dialects]
    more = ("text_1", "data_1", "items", "text_2", "data_2", "text", "title", "summary", "unknown")
    return sorted({*more, *chain.from_iterable(schema["properties"] for schema in schemas)})


LITERALS = (
    *("null", "true", "false", "0", "-1", "5.0", "1e400", "-1e400", "NaN", "Infinity", "-Infinity"),
    *("1" + "0" * 4000, "1" + "0" * 5000, "0." + "0" * 5000 + "1", "5e-324", "2E+300"),
    *('"\\ud800"', '"\\udfff\\ud800"', f'"{TEXT}\\u0000"', f'"{TEXT * 100}"', f'"{TEXT} 5"'),
    *('""', '" \\t\\u2003"', "[" * 90 + "]" * 90, "[" * 300 + "]" * 300, "+1", "01", "'a'", "[,]"),
)
ECHOED_LITERALS = tuple(one for one in LITERALS if TEXT not in one)
WORDS = st.text(max_size=20).map(lambda text: json.dumps(TEXT + text))


def values(names: list[str]) -> st.SearchStrategy[str]:
    """Return a strategy of JSON, or nearly: literals, arrays, and objects whose keys repeat."""
    return st.recursive(
        st.sampled_from(LITERALS) | WORDS,
        lambda inner: arrays(inner) | objects(names, inner),
        max_leaves=12,
    )


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]")


def objects(names: list[str], inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def member(name: str) -> st.SearchStrategy[str]:
        value = st.sampled_from(ECHOED_LITERALS) if name in ECHOED else inner
        return value.map(lambda text: f"{json.dumps(name)}:{text}")

    members = st.sampled_from(names).flatmap(member)
    return st.lists(members, max_size=8).map(lambda items: f"{{{','.join(items)}}}")


@pytest.mark.parametrize("path", PATHS)
def test_any_json_is_a_request_or_an_error_that_tells_nothing(path: str) -> None:
    names = names_of(*PATHS[path])
    bodies = objects(names, values(names)) | values(names)

    @settings(max_examples=80, deadline=None)
    @given(body=bodies)
    def hold(body: str) -> None:
        assert_asks(read(path, body.encode()))

    hold()


@pytest.mark.parametrize("path", PATHS)
def test_requests_with_one_field_spoilt_are_read_or_name_it(path: str) -> None:
    """The same from the other side: an example of the document, one field of it changed."""
    for dialect in PATHS[path]:
        for example in dialect.request.model_json_schema()["examples"]:
            texts = {name: json.dumps(value) for name, value in example.items()}
            assert isinstance(read(path, _object(texts)), Read)
            for name in names_of(dialect):
                for literal in ECHOED_LITERALS if name in ECHOED else LITERALS:
                    assert_asks(read(path, _object({**texts, name: literal})))


def _object(members: dict[str, str]) -> bytes:
    return f"{{{','.join(f'{json.dumps(k)}:{v}' for k, v in members.items())}}}".encode()


NO_JSON = {
    "empty": b"",
    "deep": b"[" * 100_000,
    "deep objects": b'{"query":' * 50_000,
    "number": b"1" * 100_000,
    "utf-16": json.dumps({"query": TEXT}).encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "two": b'{"query":"a"}{"query":"b"}',
    "comment": b'{"query":"a" /* b */}',
    "cut utf-8": b'{"query":"\xe2\x82"}',
    "surrogate": b'{"query":"\\ud800"}',
    "raw surrogate": b'{"query":"\xed\xa0\x80"}',
    "surrogate key": b'{"\\udc00":1}',
    "raw control": b'{"query":"\x01"}',
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_a_body_that_is_no_json_is_told_so(path: str, body: bytes) -> None:
    found = read(path, body)
    assert isinstance(found, InvalidRequestError)
    assert found.status == 400


LARGE = {
    "a key": _object({"k" * 900_000: "1"}),
    "keys": _object({f"key {number}": "{}" for number in range(30_000)}),
    "equal keys": b'{"query":"a"' + b',"query":"%s"' % TEXT.encode() * 40_000 + b"}",
    "faults": b'{"query":5,"documents":[%s]}' % b",".join([b'{"id":[]}'] * 1000),
    "escapes": _object({chr(number) * 200: "1" for number in range(32)}),
    "names": _object(
        {
            "query": '"a"',
            "documents": '[{"text":"a"}]',
            "rank_fields": json.dumps(["\x01" * 100_000]),
        }
    ),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE)
def test_much_that_is_wrong_makes_a_short_error(path: str, body: bytes) -> None:
    found = read(path, body)
    assert isinstance(found, InvalidRequestError)
    assert found.status == 422


def test_the_text_in_a_field_nobody_knows_stays_untold() -> None:
    for name in ("priority", "truncate", "secret"):
        candidate = {"text": "a", name: TEXT}
        found = read("/rank", json.dumps({"query": "q", "candidates": [candidate]}).encode())
        assert isinstance(found, InvalidRequestError)
        assert found.faults[0].field == f"candidates[0].{name}"
