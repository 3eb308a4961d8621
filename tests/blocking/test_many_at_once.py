"""Many requests at once: pipelines, pairs in bulk, and all pages of a scan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kvd.blocking import Client
from kvd.errors import Aborted, BadArguments, BadRequest, NotANumber, TooLarge


def test_a_pipeline_has_the_results_in_the_order_of_its_requests(client: Client) -> None:
    with client.pipeline() as pipe:
        pipe.put("a", "1")
        pipe.get("a")
        pipe.incr("n", 5)
        pipe.mget("a", "x")
        pipe.cas("a", "1", None)
        pipe.exists("a")
        pipe.scan(keys_only=True)
        pipe.count()
        pipe.call("PING", "hi")
    *results, page, count, pong = pipe.results
    assert results == [None, "1", 5, ["1", None], True, False]
    assert (page.items, page.next, count, pong) == (["n"], None, 1, "hi")


def test_a_request_that_fails_has_its_error_in_its_place_and_the_others_run(client: Client) -> None:
    client.put("word", "abc")
    with pytest.raises(NotANumber), client.pipeline() as pipe:
        pipe.put("a", "1")
        pipe.incr("word")
        pipe.get("a")
    assert pipe.results[0] is None
    assert isinstance(pipe.results[1], NotANumber)
    assert pipe.results[2] == "1"
    assert client.get("a") == "1"


def test_nothing_is_sent_of_a_pipeline_whose_block_raises(client: Client) -> None:
    with pytest.raises(ZeroDivisionError), client.pipeline() as pipe:
        pipe.put("a", "1")
        raise ZeroDivisionError
    assert client.get("a") is None
    with pytest.raises(BadRequest):
        pipe.put("a", "1")


def test_a_transactions_pipeline_belongs_to_it(client: Client, other: Client) -> None:
    with client.transaction() as txn:
        with txn.pipeline() as pipe:
            pipe.put("a", "1")
            pipe.put("b", "2")
        assert other.mget("a", "b") == [None, None]
    assert other.mget("a", "b") == ["1", "2"]
    with pytest.raises(Aborted), client.transaction() as txn, pytest.raises(NotANumber), txn.pipeline() as pipe:
        pipe.put("a", "x")
        pipe.incr("a")
    assert other.get("a") == "1"


def test_a_pipeline_that_is_far_larger_than_what_the_system_buffers_is_answered(client: Client) -> None:
    value = "x" * 100_000
    with client.pipeline() as pipe:
        for number in range(100):
            pipe.put(f"key{number}", value)
            pipe.get(f"key{number}")
    assert pipe.results == [None, value] * 100


@pytest.mark.parametrize("kind", ["mapping", "pairs", "generator"])
def test_pairs_are_stored_in_bulk(client: Client, kind: str) -> None:
    pairs = {f"key{number:05}": str(number) for number in range(5000)}
    client.put_many(
        pairs if kind == "mapping" else list(pairs.items()) if kind == "pairs" else ((key, pairs[key]) for key in pairs)
    )
    assert client.count() == 5000
    assert dict(client.scan_all()) == pairs


def test_of_a_bulk_that_fails_what_came_before_is_stored(client: Client) -> None:
    def pairs() -> Iterator[tuple[str, str]]:
        for number in range(3000):
            yield f"key{number:05}", "x" if number != 2500 else "x" * 2_000_000

    with pytest.raises(TooLarge):
        client.put_many(pairs())
    assert 2000 <= client.count() < 3000
    wrong: Any
    for wrong in (5, [5], [("a", "b", "c")], ["abc"], [("a", 1)]):
        with pytest.raises(BadArguments):
            client.put_many(wrong)
    assert client.ping() == "PONG"


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("keys_only", [False, True])
def test_all_pages_of_a_scan_come_one_after_the_other(client: Client, reverse: bool, keys_only: bool) -> None:
    client.put_many({f"key{number:05}": str(number) for number in range(2500)})
    client.put_many({"a": "", "z": ""})
    found = list(client.scan_all("key", start="key00001", end="key02499", reverse=reverse, keys_only=keys_only))
    wanted = [(f"key{number:05}", str(number)) for number in range(1, 2499)]
    if reverse:
        wanted.reverse()
    assert found == ([key for key, _ in wanted] if keys_only else wanted)
