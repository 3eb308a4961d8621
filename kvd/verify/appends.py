"""The list-append check: dependencies inferred from lists of unique elements.

After Elle (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations",
VLDB 2020). Every element is appended to a key once, so a list that is read tells which appends had
happened, and in which order. A transaction of unknown outcome counts as committed if another one saw one of
its appends.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any, Final, NamedTuple

from kvd.verify.explain import Violation, late_snapshot, listed, name, shown
from kvd.verify.graph import RW, WR, WW, Because, Graph
from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN, History, Transaction

Element = Any
"""A number or a text."""


class Read(NamedTuple):
    """What a transaction read of a key, without what it had appended itself."""

    values: list[Element]
    reader: int


class Appends:
    """The list-append check of one history.

    :raise ValueError: an element was appended to a key twice, so nothing can be concluded.
    """

    def __init__(self, history: History) -> None:
        self._transactions: Final = history.transactions
        self._violations: list[Violation] = []
        # Who appended an element, by key and element.
        self._writers: dict[str, dict[Element, int]] = defaultdict(dict)
        # What a transaction appended to a key, in order, by key and number.
        self._own: dict[str, dict[int, list[Element]]] = defaultdict(dict)
        self._reads: dict[str, list[Read]] = defaultdict(list)
        # What committed transactions read after their own appends, including these.
        self._rereads: dict[str, list[Read]] = defaultdict(list)
        for transaction in self._transactions:
            self._note_appends(transaction)
        for transaction in self._transactions:
            self._note_reads(transaction)
        # The longest list that was read of each key, the order that it shows, and the reads that contradict it.
        self._longest: dict[str, list[Element]] = {}
        self._orders: dict[str, list[Element]] = {}
        self._odd: dict[str, list[Read]] = {}
        for key, reads in self._reads.items():
            self._order(key, [*reads, *self._rereads[key]])

    def _note_appends(self, transaction: Transaction) -> None:
        for operation in transaction.operations:
            if operation.verb == "append":
                key, element = operation.key, operation.argument
                if self._writers[key].setdefault(element, transaction.number) != transaction.number or (
                    element in self._own[key].get(transaction.number, ())
                ):
                    raise ValueError(f"{shown(element)} was appended to {key} twice; elements must be unique")
                self._own[key].setdefault(transaction.number, []).append(element)

    def _note_reads(self, transaction: Transaction) -> None:
        """Keep what others appended, and check that the transaction sees its own appends and a single state."""
        number = transaction.number
        seen: dict[str, list[Element]] = {}
        appended: dict[str, list[Element]] = {}
        for operation in transaction.operations:
            key = operation.key
            if operation.verb == "append":
                appended.setdefault(key, []).append(operation.argument)
            elif operation.verb == "read":
                values, own = operation.result, appended.get(key, [])
                outside = values[: len(values) - len(own)]
                if values[len(outside) :] != own or outside != seen.get(key, outside):
                    expected = shown(seen[key] + own) if key in seen else f"a list that ends in {shown(own)}"
                    self._internal(number, key, values, expected)
                elif not set(self._own[key].get(number, ())).isdisjoint(outside):
                    self._internal(number, key, values, "nothing that it had yet to append")
                elif key not in seen:
                    seen[key] = outside
                    self._reads[key].append(Read(outside, number))
                if own and transaction.outcome == COMMITTED and key in seen and values == seen[key] + own:
                    self._rereads[key].append(Read(values, number))

    def _internal(self, number: int, key: str, values: list[Element], expected: str) -> None:
        what = f"{name(number)} read {key} as {shown(values)}, which contradicts its own earlier reads and appends"
        self._violations.append(Violation("internal", what, (number,), (), f"{expected} in {key}"))

    def _order(self, key: str, reads: list[Read]) -> None:
        longest = max(reads, key=_length)
        self._longest[key] = longest.values
        self._orders[key] = list(dict.fromkeys(longest.values))
        odd = [read for read in reads if read.values != longest.values[: len(read.values)]]
        self._odd[key] = odd
        if odd:
            self._incompatible(key, reads, min(odd, key=_length), longest)
        doubled = [read for read in [longest, *odd] if len(set(read.values)) < len(read.values)]
        if doubled:
            reader = doubled[0].reader
            twice = next(each for each in doubled[0].values if doubled[0].values.count(each) > 1)
            what = f"{name(reader)} read {key} as {shown(doubled[0].values)}, with {shown(twice)} more than once"
            expected = f"{shown(twice)} once in {key}"
            numbers = tuple(dict.fromkeys([reader, self._writers[key].get(twice, reader)]))
            self._violations.append(Violation("duplicate-elements", what, numbers, (), expected))

    def _incompatible(self, key: str, reads: list[Read], odd: Read, longest: Read) -> None:
        place = next(index for index, value in enumerate(odd.values) if value != longest.values[index])
        shown_by = [read for read in reads if read.values[: place + 1] == longest.values[: place + 1]]
        other = min(shown_by, key=_length)
        what = (
            f"{name(odd.reader)} read {key} as {shown(odd.values)}, and {name(other.reader)} as "
            f"{shown(other.values)}: at place {place + 1}, one has {shown(odd.values[place])} and the other "
            f"{shown(other.values[place])}"
        )
        numbers = [odd.reader, other.reader]
        for values in (odd.values, other.values):
            numbers += [self._writers[key].get(values[place], odd.reader)]
        expected = f"one list of {key} that begins with the other, because elements are never taken out"
        self._violations.append(Violation("incompatible-order", what, tuple(dict.fromkeys(numbers)), (), expected))

    def seen(self) -> set[int]:
        """The transactions of unknown outcome that took effect, because others saw what they appended."""
        return {
            writer
            for key, order in self._orders.items()
            for values in (order, *(read.values for read in self._odd[key]))
            for writer in map(self._writers[key].get, values)
            if writer is not None and self._transactions[writer].outcome == UNKNOWN
        }

    def infer(self, graph: Graph) -> list[Violation]:
        """Add the dependencies to a graph.

        :return: the violations that can be seen without the graph.
        """
        for key in sorted(self._writers.keys() | self._reads.keys()):
            self._check_elements(key)
            self._infer_key(key, graph)
        return self._violations

    def _check_elements(self, key: str) -> None:
        """Look for aborted reads (G1a), and for elements that nobody appended."""
        order, writers = self._orders.get(key, []), self._writers[key]
        odd = self._odd.get(key, [])
        for element in dict.fromkeys([*order, *(value for read in odd for value in read.values)]):
            writer = writers.get(element)
            if writer is not None and self._transactions[writer].outcome != ROLLED_BACK:
                continue
            read = min((read for read in self._reads[key] if element in read.values), key=lambda read: len(read.values))
            what = f"{name(read.reader)} read {key} as {shown(read.values)}, with {shown(element)}"
            expected = f"{key} without {shown(element)}"
            if writer is None:
                what += ", which nobody appended"
                self._violations.append(Violation("garbage-read", what, (read.reader,), (), expected))
            else:
                what += f" of {name(writer)}, which was rolled back"
                self._violations.append(Violation("G1a", what, (writer, read.reader), (), expected))

    def _infer_key(self, key: str, graph: Graph) -> None:
        committed, writers, order = graph.committed, self._writers[key], self._orders.get(key, [])
        # The elements of committed writers, in order.
        chain = [(element, writers[element]) for element in order if writers.get(element) in committed]
        for (element, writer), (other, later) in pairwise(chain):
            graph.add(writer, later, WW, Because("ww", key, element, other))
        # Committed appends that no read shows come after everything that was read.
        placed = set(order)
        hidden = [(each, writer) for each, writer in writers.items() if each not in placed and writer in committed]
        for other, later in hidden if chain else ():
            element, writer = chain[-1]
            graph.add(writer, later, WW, Because("ww", key, element, other))
        # What comes next in the chain after the first 0, 1, 2, ... elements of the order.
        following: list[list[tuple[Element, int]]] = [hidden]
        for element in reversed(order):
            writer = writers.get(element, -1)
            following.append([(element, writer)] if writer in committed else following[-1])
        following.reverse()
        longest = self._longest.get(key, [])
        updates: dict[tuple[Element, ...], list[int]] = defaultdict(list)
        for read in self._reads.get(key, []):
            if read.values:
                self._infer_seen(key, read, graph)
            if read.values == longest[: len(read.values)]:
                because = "rw" if read.values else "rw-empty"
                for element, writer in following[len(set(read.values))]:
                    seen = read.values[-1] if read.values else None
                    graph.add(read.reader, writer, RW, Because(because, key, seen, element))
            if read.reader in committed and read.reader in self._own[key]:
                updates[tuple(read.values)].append(read.reader)
        for values, numbers in updates.items():
            if len(numbers) > 1:
                self._lost_update(key, values, numbers)

    def _infer_seen(self, key: str, read: Read, graph: Graph) -> None:
        element = read.values[-1]
        writer = self._writers[key].get(element)
        if writer is None or writer not in graph.committed:
            return
        graph.add(writer, read.reader, WR, Because("wr", key, element))
        own = self._own[key][writer]
        if element != own[-1]:
            what = (
                f"{name(read.reader)} read {key} as {shown(read.values)}: of what {name(writer)} appended, "
                f"{shown(own)}, it saw only what came up to {shown(element)}"
            )
            expected = f"{shown(own)} in {key}, or none of it"
            self._violations.append(Violation("G1b", what, (writer, read.reader), (), expected))
        if graph.is_late(writer, read.reader):
            self._violations.append(late_snapshot(writer, read.reader, f"{shown(element)} in {key}"))

    def _lost_update(self, key: str, values: tuple[Element, ...], numbers: list[int]) -> None:
        who = listed([name(number) for number in numbers[:4]]) + (" (and more)" if len(numbers) > 4 else "")
        what = f"{who} each read {key} as {shown(values)}, appended to it, and were committed"
        expected = "all but one of them should have been refused with CONFLICT"
        self._violations.append(Violation("lost-update", what, tuple(numbers[:4]), (), expected))


def _length(read: Read) -> int:
    return len(read.values)
