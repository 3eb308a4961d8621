"""Requests that are sent together, without waiting for the reply to each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from kvd import wire
from kvd.blocking import questions
from kvd.blocking.link import Answer
from kvd.blocking.questions import Request
from kvd.errors import BadArguments, BadRequest, KvdError
from kvd.requests import LEADING

BATCH = 1000
BATCH_BYTES = 1024 * 1024
"""A batch of :func:`put_all` ends at so many requests, or once they are so many bytes."""

Run = Callable[[list[Request[Any]]], list[Answer]]
"""Sends requests, and waits for what comes of each."""


class Pipeline:
    """Requests that are sent together at the end of the ``with`` block; made by ``pipeline()``.

    Its methods are those of the client, but return None. After the block, ``results`` has what they would have
    returned, in the same order. The requests run one after the other, and all of them run, also after one that
    failed. If any failed, the end of the block raises the first error. If the block itself raises, nothing is sent.

    :ivar results: for each request its result, or in its place the error with which it failed.
    """

    def __init__(self, run: Run) -> None:
        self.results: list[Any] = []
        self._run = run
        self._asked: list[Request[Any]] = []
        self._open = False

    def __enter__(self) -> Pipeline:
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._open = False
        asked, self._asked = self._asked, []
        if kind is None and asked:
            self._send(asked)

    def _send(self, asked: list[Request[Any]]) -> None:
        try:
            outcomes = self._run(asked)
        except KvdError as error:
            self.results = [error for _ in asked]
            raise
        self.results = [result if error is None else error for result, error in outcomes]
        _raise_first(outcomes)

    def _add(self, request: Request[Any]) -> None:
        if not self._open:
            raise BadRequest("a pipeline takes requests inside its with block only")
        if request.name in LEADING:
            raise BadRequest(f"{request.name} has no place in a pipeline; use the pipeline() of a transaction")
        self._asked.append(request)

    def call(self, *words: wire.Word) -> None:
        self._add(questions.ask(questions.anything, *words))

    def put(self, key: str, value: str) -> None:
        self._add(questions.put(key, value))

    def get(self, key: str) -> None:
        self._add(questions.get(key))

    def delete(self, key: str) -> None:
        self._add(questions.delete(key))

    def mget(self, *keys: str) -> None:
        self._add(questions.mget(keys))

    def exists(self, key: str) -> None:
        self._add(questions.exists(key))

    def incr(self, key: str, delta: int = 1) -> None:
        self._add(questions.incr(key, delta))

    def cas(self, key: str, expected: str | None, new: str | None) -> None:
        self._add(questions.cas(key, expected, new))

    def scan(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> None:
        self._add(questions.scan(prefix, start, end, limit, reverse, keys_only))

    def count(self, prefix: str = "") -> None:
        self._add(questions.count(prefix))


def put_all(run: Run, pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
    """Store pairs, in batches that are sent together."""
    for batch in _batches(pairs):
        _raise_first(run(batch))


def _batches(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> Iterator[list[Request[None]]]:
    try:
        left = iter(pairs.items() if isinstance(pairs, Mapping) else pairs)
    except TypeError:
        raise BadArguments(f"put_many takes a mapping or pairs, not {type(pairs).__name__}") from None
    batch: list[Request[None]] = []
    size = 0
    for pair in left:
        try:
            key, value = pair
        except (TypeError, ValueError):
            raise BadArguments(f"put_many takes pairs of a key and a value, not {type(pair).__name__}") from None
        batch.append(questions.put(key, value))
        size += len(batch[-1].line)
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _raise_first(outcomes: list[Answer]) -> None:
    for _, error in outcomes:
        if error is not None:
            raise error
