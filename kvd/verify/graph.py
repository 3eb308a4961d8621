"""Which transaction came before which, and the cycles among them: no order can explain a cycle.

The kinds of dependency and the names of the cycles are Adya's ("Weak Consistency: A Generalized Theory and
Optimistic Implementations for Distributed Transactions", MIT 1999), with the real-time and per-client
forms, and the way to search for them, of Elle (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies
from Experimental Observations", VLDB 2020).

The graph also holds transactions that were not committed, as readers: a transaction reads from the snapshot of
its START, whatever happens to it later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from math import inf
from typing import Any, Final, NamedTuple

import networkx

from kvd.verify.history import COMMITTED, UNKNOWN, Transaction

WW: Final = 1
"""The later one overwrote what the earlier one wrote."""
WR: Final = 2
"""The later one read what the earlier one wrote."""
RW: Final = 4
"""The later one overwrote what the earlier one read: an anti-dependency."""
PROCESS: Final = 8
"""One client did both, in this order."""
REALTIME: Final = 16
"""The earlier one was over before the later one began."""

_BY_STRENGTH: Final = (WW, WR, PROCESS, REALTIME, RW)
# The kinds of edges that a search begins with and goes on with; those that find the most severe anomalies come first.
_SEARCHES: Final = ((WW, WW), (WR, WW | WR), (RW, WW | WR), (RW, WW | WR | RW))
# The most edges that one search looks at, so that a history full of violations still takes only seconds.
_SEARCH_LIMIT: Final = 500_000


class Because(NamedTuple):
    """Why one transaction came before another.

    :ivar reason: a key of :data:`kvd.verify.explain.REASONS`.
    :ivar key: the key or the prefix.
    :ivar seen: the element, key or number of the reader or of the earlier writer.
    :ivar other: the same of the later writer.
    """

    reason: str
    key: str = ""
    seen: Any = None
    other: Any = None


class Step(NamedTuple):
    """One edge of a cycle, between the numbers of two transactions."""

    before: int
    after: int
    kind: int
    because: Because


class Cycle(NamedTuple):
    """A cycle: each step ends where the next begins, the last where the first began."""

    anomaly: str
    steps: list[Step]


class Graph:
    """The dependencies between the transactions of a history.

    :param transactions: the whole history, in its order.
    :param committed: the numbers of those that took effect.
    """

    def __init__(self, transactions: Sequence[Transaction], committed: Collection[int]) -> None:
        self.transactions: Final = transactions
        self.committed: Final = committed
        self._edges: dict[int, dict[int, int]] = defaultdict(dict)
        self._because: dict[tuple[int, int, int], Because] = {}
        self._ends: dict[int, float] = {}

    def add(self, before: int, after: int, kind: int, because: Because) -> None:
        """Note that one transaction came before another; nothing, if they are the same."""
        if before != after:
            edges = self._edges[before]
            edges[after] = edges.get(after, 0) | kind
            self._because.setdefault((before, after, kind), because)

    def is_late(self, writer: int, reader: int) -> bool:
        """Whether a reader saw a writer that was sent only after the reply to the reader's START."""
        started = self.transactions[reader].started
        return started is not None and self.transactions[writer].invoked > started

    def add_order(self) -> None:
        """Add the order of each client and of real time, among the transactions that are in the graph already."""
        known = self._edges.keys() | {after for edges in self._edges.values() for after in edges}
        # Not by number: a history may be put together from several.
        nodes = sorted((self.transactions[number] for number in known), key=lambda each: (each.invoked, each.number))
        self._add_process_order(nodes)
        self._add_realtime_order(nodes)

    def _add_process_order(self, nodes: Iterable[Transaction]) -> None:
        latest: dict[int, int] = {}
        for node in nodes:
            if node.client in latest:
                self._add_mere_order(latest[node.client], node.number, PROCESS)
            if self.end(node) is not None:
                latest[node.client] = node.number

    def _add_realtime_order(self, nodes: Iterable[Transaction]) -> None:
        """Add the transitive reduction of real time.

        The frontier holds what is over, and is not known to come before something else that is over. So it is never
        larger than the number of clients at work at the same time.
        """
        events: list[tuple[float, int, int]] = []
        for node in nodes:
            end = self.end(node)
            self._ends[node.number] = inf if end is None else end
            events.append((node.invoked, 0, node.number))
            if end is not None:
                events.append((end, 1, node.number))
        events.sort()  # at the same instant, beginnings come first, so that no order is assumed
        frontier: dict[int, None] = {}
        before: dict[int, list[int]] = {}
        for _, is_end, number in events:
            if not is_end:
                before[number] = list(frontier)
                for earlier in frontier:
                    self._add_mere_order(earlier, number, REALTIME)
            else:
                for earlier in before[number]:
                    frontier.pop(earlier, None)
                frontier[number] = None

    def _add_mere_order(self, before: int, after: int, kind: int) -> None:
        edges = self._edges[before]
        edges[after] = edges.get(after, 0) | kind

    def end(self, node: Transaction) -> float | None:
        """When a transaction has its place in the order: a reader after its START, a writer after its COMMIT."""
        if node.number in self.committed and node.writes:
            return node.completed if node.outcome == COMMITTED else None
        if node.started is not None:
            return node.started
        return node.completed if node.outcome != UNKNOWN else None

    def cycles(self) -> list[Cycle]:
        """The shortest cycle found of each anomaly, the most severe first.

        Cycles that need real time are looked for only if there are none without it.
        """
        tangled = [number for part in self._parts(WW | WR | RW | PROCESS | REALTIME, self._edges) for number in part]
        if not tangled:
            return []
        for order in (0, PROCESS, PROCESS | REALTIME):
            found: dict[str, Cycle] = {}
            for first, rest in _SEARCHES:
                parts = self._parts(first | rest | order, tangled)
                path = self._shortest(parts, first, rest | order)
                if path is not None:
                    cycle = self._named(path, first, rest | order)
                    found.setdefault(cycle.anomaly, cycle)
            if found:
                return list(found.values())
        raise AssertionError("a strongly connected component holds a cycle")

    def _parts(self, kinds: int, numbers: Collection[int]) -> list[list[int]]:
        """The strongly connected components of more than one node."""
        wanted = numbers if isinstance(numbers, dict) else set(numbers)
        graph: networkx.DiGraph[int] = networkx.DiGraph()
        graph.add_edges_from(
            (number, after)
            for number in numbers
            for after, mask in self._edges.get(number, {}).items()
            if mask & kinds and after in wanted
        )
        return sorted(sorted(part) for part in networkx.strongly_connected_components(graph) if len(part) > 1)

    def _shortest(self, parts: list[list[int]], first: int, rest: int) -> list[int] | None:
        """The shortest cycle found that begins with an edge of some kinds and goes on with others."""
        found = [_Part(part, self.transactions) for part in parts]
        begins = [
            (number, after, part)
            for part in found
            for number in sorted(part.members)
            for after, kinds in self._edges[number].items()
            if kinds & first and after in part.members
        ]
        for depth in (1, 2, 3, len(self.transactions)):
            left = _SEARCH_LIMIT
            for number, after, part in begins:
                path, looked_at = self._path(after, number, rest, part, depth)
                if path is not None:
                    return path
                left -= looked_at
                if left < 0:
                    break
        return None

    def _path(self, source: int, target: int, kinds: int, part: _Part, depth: int) -> tuple[list[int] | None, int]:
        """The shortest path of at most ``depth`` edges, found breadth first, and how many edges were looked at.

        Here, real time is the whole relation and not its reduction: one edge leads from a transaction to any that
        began later.
        """
        came_from = {source: source}
        level = [source]
        looked_at = 0
        waiting = len(part.by_begin) if kinds & REALTIME else 0  # those that began later than these were met
        for remaining in range(depth - 1, -1, -1):
            looked_at += len(level)
            for number in level:
                if self._kind(number, target, kinds):
                    path = [number]
                    while path[-1] != source:
                        path.append(came_from[path[-1]])
                    return [target, *reversed(path)], looked_at
            following: list[int] = []
            for number in level if remaining else ():
                edges = self._edges[number]
                met = [after for after, mask in edges.items() if mask & kinds and after in part.members]
                end = self._ends[number]
                while waiting and part.by_begin[waiting - 1].invoked > end:
                    waiting -= 1
                    met.append(part.by_begin[waiting].number)
                looked_at += len(edges) + len(met)
                for after in met:
                    if after not in came_from:
                        came_from[after] = number
                        following.append(after)
            level = following
            if not level:
                break
        return None, looked_at

    def _kind(self, before: int, after: int, allowed: int) -> int:
        """The strongest allowed kind of edge between two transactions; 0 if there is none."""
        mask = self._edges[before].get(after, 0) & allowed
        if allowed & REALTIME and self._ends[before] < self.transactions[after].invoked:
            mask |= REALTIME
        return next((kind for kind in _BY_STRENGTH if mask & kind), 0)

    def _named(self, path: list[int], first: int, rest: int) -> Cycle:
        steps: list[Step] = []
        for before, after in zip(path, [*path[1:], path[0]], strict=True):
            kind = self._kind(before, after, rest if steps else first)
            if kind == PROCESS and steps and steps[-1].kind == PROCESS:
                before = steps.pop().before
            because = self._because.get((before, after, kind)) or Because("process" if kind == PROCESS else "realtime")
            steps.append(Step(before, after, kind, because))
        kinds = [step.kind for step in steps]
        return Cycle(_name(kinds, any("prefix" in step.because.reason for step in steps)), steps)


class _Part:
    """A strongly connected component."""

    def __init__(self, numbers: list[int], transactions: Sequence[Transaction]) -> None:
        self.members = set(numbers)
        self.by_begin = sorted((transactions[number] for number in numbers), key=lambda each: each.invoked)


def _name(kinds: list[int], with_predicate: bool) -> str:
    missed = kinds.count(RW)
    if missed == 0:
        name = "G1c" if WR in kinds else "G0"
    elif missed == 1:
        name = "G-single"
    elif any(kind == RW == kinds[index - 1] for index, kind in enumerate(kinds)):
        name = "G2" if with_predicate else "G2-item"
    else:
        name = "G-nonadjacent"
    if REALTIME in kinds:
        return name + "-realtime"
    return name + "-process" if PROCESS in kinds else name
