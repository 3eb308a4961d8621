"""The predicate check: what was scanned and counted under a prefix, against insertions and deletions there.

Every key under such a prefix is inserted once and deleted at most once, so the life of a key has a known order:
not there yet, there, gone. A scan that sees a key came after its insertion and before its deletion. A scan that
does not see it came before its insertion or after its deletion; real time often tells which. Where nothing is
deleted, the number of keys only grows, so a count tells its own place in the order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from math import inf
from typing import Final, NamedTuple

from kvd.verify.explain import Violation, late_snapshot, name, shown
from kvd.verify.graph import RW, WR, Because, Graph
from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN, History, Transaction


class View:
    """What one transaction knows of one prefix.

    :ivar keys: what it saw in a scan, without its own changes; ``None`` before it scanned.
    :ivar number: how many keys it found, without its own changes; ``None`` before it counted or scanned.
    """

    def __init__(self) -> None:
        self.inserted: list[str] = []
        self.deleted: list[str] = []
        self.keys: set[str] | None = None
        self.number: int | None = None

    def expected(self) -> set[str] | None:
        """What a scan must show now; ``None`` if that is not known."""
        return None if self.keys is None else (self.keys | set(self.inserted)).difference(self.deleted)


class Life(NamedTuple):
    """What is known of one key.

    :ivar key: the key.
    :ivar inserter: the committed transaction that inserted it.
    :ivar begin: before this time, it was not there.
    :ivar there: after this time, it was there, unless deleted.
    :ivar deleters: the transactions that may have deleted it.
    :ivar going: before this time, it was not deleted.
    :ivar effective: the deleters that certainly found it there, and removed it.
    :ivar gone: after this time, it was no longer there.
    """

    key: str
    inserter: int
    begin: float
    there: float
    deleters: list[int]
    going: float
    effective: list[int]
    gone: float


class Prefix:
    """What a history tells about one prefix."""

    def __init__(self) -> None:
        self.inserted: dict[str, int] = {}
        self.deleted: dict[str, list[int]] = defaultdict(list)
        self.views: dict[int, View] = defaultdict(View)


class Predicates:
    """The predicate check of one history.

    :raise ValueError: a key was inserted twice, so nothing can be concluded.
    """

    def __init__(self, history: History) -> None:
        self._transactions: Final = history.transactions
        self._violations: list[Violation] = []
        self._prefixes: dict[str, Prefix] = defaultdict(Prefix)
        for transaction in self._transactions:
            self._note(transaction)

    def _note(self, transaction: Transaction) -> None:
        number = transaction.number
        for verb, key, argument, result in transaction.operations:
            if verb == "insert":
                prefix = self._prefixes[argument]
                if prefix.inserted.setdefault(key, number) != number or key in prefix.views[number].inserted:
                    raise ValueError(f"{key} was inserted twice; keys under a scanned prefix must be unique")
                prefix.views[number].inserted.append(key)
            elif verb == "delete":
                self._prefixes[argument].deleted[key].append(number)
                self._prefixes[argument].views[number].deleted.append(key)
            elif verb == "scan":
                self._note_scan(number, key, result)
            elif verb == "count":
                self._note_count(number, key, argument, result)

    def _note_scan(self, number: int, text: str, result: list[str]) -> None:
        view = self._prefixes[text].views[number]
        found, own = set(result), set(view.inserted).difference(view.deleted)
        expected = view.expected()
        if expected is not None and found != expected:
            self._internal(number, text, result, shown(sorted(expected)))
        elif len(found) < len(result) or not own <= found or not found.isdisjoint(view.deleted):
            self._internal(number, text, result, f"{shown(sorted(own))} and no key of {shown(view.deleted)}, each once")
        elif view.keys is None and not view.deleted:
            view.keys = found - own
            self._note_number(number, text, view, result, len(result))

    def _note_count(self, number: int, text: str, bounds: list[int] | None, result: int) -> None:
        if bounds and not bounds[0] <= result <= bounds[1]:
            what = f"{name(number)} counted {result} keys under {text}"
            expected = f"{bounds[0]} to {bounds[1]} keys, because every transaction counted them before it added one"
            self._violations.append(Violation("bound", what, (number,), (), expected))
        view = self._prefixes[text].views[number]
        expected_keys = view.expected()
        if expected_keys is not None and len(expected_keys) != result:
            self._internal(number, text, result, f"{len(expected_keys)} keys")
        elif not view.deleted:  # what was deleted without a look may have been absent, so the number tells nothing
            self._note_number(number, text, view, result, result)

    def _note_number(self, number: int, text: str, view: View, result: list[str] | int, found: int) -> None:
        outside = found - len(view.inserted)
        if view.number is None:
            view.number = outside
        if outside != view.number or outside < 0:
            self._internal(number, text, result, f"{max(view.number, 0) + len(view.inserted)} keys")

    def _internal(self, number: int, text: str, result: list[str] | int, expected: str) -> None:
        what = f"{name(number)} found {shown(result)} under {text}, which contradicts its own earlier reads and changes"
        self._violations.append(Violation("internal", what, (number,), (), f"{expected} under {text}"))

    def seen(self) -> set[int]:
        """The transactions of unknown outcome that took effect, because others saw what they inserted."""
        return {
            writer
            for prefix in self._prefixes.values()
            for reader, view in prefix.views.items()
            for writer in map(prefix.inserted.get, view.keys or ())
            if writer is not None and writer != reader and self._transactions[writer].outcome == UNKNOWN
        }

    def infer(self, graph: Graph) -> list[Violation]:
        """Add the dependencies to a graph.

        :return: the violations that can be seen without the graph.
        """
        for text, prefix in self._prefixes.items():
            lives = {
                key: self._life(key, inserter, prefix)
                for key, inserter in prefix.inserted.items()
                if inserter in graph.committed
            }
            self._infer_present(text, prefix, lives, graph)
            self._infer_absent(text, prefix, lives, graph)
            if not prefix.deleted:
                self._infer_numbers(text, prefix, graph)
        return self._violations

    def _life(self, key: str, inserter: int, prefix: Prefix) -> Life:
        insertion = self._transactions[inserter]
        there = _end(insertion)
        deletions = [
            each
            for number in prefix.deleted.get(key, ())
            if (each := self._transactions[number]).outcome != ROLLED_BACK
        ]
        alone = len(deletions) == 1
        effective = [
            each
            for each in deletions
            if each.outcome == COMMITTED
            and (key in (prefix.views[each.number].keys or ()) or (alone and there < each.invoked))
        ]
        return Life(
            key,
            inserter,
            insertion.invoked,
            there,
            [each.number for each in deletions],
            min((each.invoked for each in deletions), default=inf),
            [each.number for each in effective],
            min((_end(each) for each in effective), default=inf),
        )

    def _infer_present(self, text: str, prefix: Prefix, lives: dict[str, Life], graph: Graph) -> None:
        for reader, view in prefix.views.items():
            for key in sorted(view.keys or ()):
                inserter = prefix.inserted.get(key)
                expected = f"no {key} under {text}"
                if inserter is None:
                    what = f"{name(reader)} saw {key} under {text}, which nobody inserted"
                    self._violations.append(Violation("garbage-read", what, (reader,), (), expected))
                elif inserter == reader:
                    self._internal(reader, text, sorted(view.keys or ()), f"no {key} before its own insertion")
                elif inserter not in graph.committed:
                    what = f"{name(reader)} saw {key} under {text}, of {name(inserter)}, which was rolled back"
                    self._violations.append(Violation("G1a", what, (inserter, reader), (), expected))
                else:
                    graph.add(inserter, reader, WR, Because("wr-prefix", text, key))
                    if graph.is_late(inserter, reader):
                        self._violations.append(late_snapshot(inserter, reader, f"{key} under {text}"))
                    for deleter in lives[key].effective:
                        graph.add(reader, deleter, RW, Because("rw-prefix-deleted", text, None, key))

    def _infer_absent(self, text: str, prefix: Prefix, lives: dict[str, Life], graph: Graph) -> None:
        coming = sorted(lives.values(), key=lambda life: life.begin, reverse=True)
        scans = [
            (self._transactions[reader], view.keys) for reader, view in prefix.views.items() if view.keys is not None
        ]
        scans.sort(key=lambda scan: scan[0].invoked)
        present: list[Life] = []
        for reader, keys in scans:
            end = graph.end(reader)
            while coming and (end is None or coming[-1].begin <= end):
                present.append(coming.pop())
            # What was gone before this scan was sent was also gone for all later ones.
            present = [life for life in present if life.gone >= reader.invoked]
            for life in present:
                if life.key not in keys and life.inserter != reader.number:
                    self._infer_absence(text, life, reader, end, graph)

    def _infer_absence(self, text: str, life: Life, reader: Transaction, end: float | None, graph: Graph) -> None:
        deleters = [deleter for deleter in life.deleters if deleter != reader.number]
        if not deleters or (end is not None and end < life.going):
            graph.add(reader.number, life.inserter, RW, Because("rw-prefix", text, None, life.key))
        elif life.there < reader.invoked and len(deleters) == 1 and deleters[0] in graph.committed:
            graph.add(deleters[0], reader.number, WR, Because("wr-prefix-deleted", text, life.key))
            if graph.is_late(deleters[0], reader.number):
                self._violations.append(late_snapshot(deleters[0], reader.number, f"{life.key} gone under {text}"))

    def _infer_numbers(self, text: str, prefix: Prefix, graph: Graph) -> None:
        """Where nothing is deleted: a count of more keys than an inserter found came after it, and of fewer, before."""
        found = {reader: view.number for reader, view in prefix.views.items() if view.number is not None}
        inserters = sorted(
            (number, reader)
            for reader, number in found.items()
            if reader in graph.committed and prefix.views[reader].inserted
        )
        for reader, number in found.items():
            place = bisect_left(inserters, (number, -1))
            if place:
                earlier = inserters[place - 1][1]
                after = inserters[place - 1][0] + len(prefix.views[earlier].inserted)
                graph.add(earlier, reader, WR, Because("wr-prefix-count", text, after, number))
                if number < after:
                    graph.add(reader, earlier, RW, Because("rw-prefix-count", text, number, inserters[place - 1][0]))
            # Two, because the first may be the reader itself.
            for before, later in inserters[place : place + 2]:
                graph.add(reader, later, RW, Because("rw-prefix-count", text, number, before))


def _end(transaction: Transaction) -> float:
    """The time after which a writer has taken effect."""
    return transaction.completed if transaction.completed is not None and transaction.outcome == COMMITTED else inf
