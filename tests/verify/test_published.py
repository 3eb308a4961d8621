"""Histories whose verdict is published: the examples of Elle's paper and of the tests in its repository.

Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", VLDB 2020; and
jepsen-io/elle, test/elle/list_append_test.clj and histories/. Names differ where kvd has only one for what
Elle parts further: its G-single-item is G-single here, and a dirty update is shown by the G1a in it.
"""

from __future__ import annotations

import pytest

from kvd.verify.check import check
from kvd.verify.history import ROLLED_BACK, UNKNOWN, History, Operation, Transaction
from tests.support.histories import history, in_turn, tx

Spec = list[tuple[str, int | str, list[int] | int]]


def listed(*specs: Spec) -> list[Transaction]:
    """Transactions of the paper's form, one behind the other: (append, key, element) and (read, key, list)."""
    transactions = []
    for spec in specs:
        operations = [
            Operation("append", str(key), value) if what == "append" else Operation("read", str(key), None, value)
            for what, key, value in spec
        ]
        transactions.append(tx(operations))
    return transactions


PUBLISHED = {
    "G0": (history("ax1ay1", "ax2ay2", "rx12ry21"), {"G0"}),
    "G1a": (history(tx("ax1", outcome=ROLLED_BACK), "rx1"), {"G1a"}),
    "G1b": (in_turn("ax1ax2", "rx1"), {"G1b", "G-single"}),
    "G1c": (history("ax1ry1", "ax2ay1", "rx12ry1"), {"G1c"}),
    "G-single": (history("ax1ay1", "ax2ry", "rx12"), {"G-single"}),
    "G-single of repeatable read": (history("ax1ay1", "rx1ry"), {"G-single"}),
    "G2-item": (history("ax1ry", "ay1rx"), {"G2-item"}),
    "G2-item of repeatable read": (history("rxay1", "ryax1"), {"G2-item"}),
    "G2-item of three": (history("rxay1", "ryax1", "rx1ry1"), {"G2-item"}),
    "figure 3 of Adya, Liskov and O'Neil": (history("az1ax1ay1", "rx1ay2", "ry12az3", "rz13"), set()),
    "strong snapshot isolation": (in_turn("ax1", "ax2", "rx1", "rx12"), {"G-single-realtime"}),
    "strong session snapshot isolation": (
        in_turn(tx("ax1", client=0), tx("ax2", client=1), tx("rx1", client=1), tx("rx12", client=2)),
        {"G-single-process"},
    ),
    "G-nonadjacent-process": (
        in_turn(tx("rxrz1", client=0), tx("ax1", client=1), tx("rz", client=1), tx("az1", client=2)),
        {"G-nonadjacent-process"},
    ),
    "contradictory read orders": (
        history("ax1ry1", "ax2", "ax3ay1", "rx13", "rx123"),
        {"G1c", "incompatible-order"},
    ),
    "dirty update": (history(tx("ax1", outcome=ROLLED_BACK), "ax2", "rx12"), {"G1a"}),
    "dirty update, indirect": (
        history(tx("ax1", outcome=ROLLED_BACK), tx("ax2", outcome=UNKNOWN), "ax3", "rx123"),
        {"G1a"},
    ),
    "duplicated elements": (history("ax1ry1", "ax2ay1", "rx121"), {"G1c", "duplicate-elements"}),
    "internal": (history("ax1ax2ax4", "ax3rx1234"), {"internal"}),
    "internal, as in FaunaDB": (history("ax6rx"), {"internal"}),
    "future read": (history("rx1ax1"), {"internal"}),
    "unobserved write": (history("ax1ay1", "ax2ay2", "ax3ay3", "rx12", "ry2"), {"G0", "G-single"}),
    "G-nonadjacent": (history("ax1", "rx1ry", "ay1", "ry1rx"), {"G-nonadjacent"}),
    "G-nonadjacent of repeatable read": (history("ax1at1", "rx1ry", "ay1az2", "rz2rt"), {"G-nonadjacent"}),
    "no cycle, though writes are missed": (history("rx5ay1", "ryaz2", "rzat3", "rt3au4", "ruax5"), set()),
    "lost update": (in_turn("ax0", "rx0ax1", "rx0ax2"), {"lost-update", "G2-item"}),
    "one transaction, double write": (in_turn("rxax1ax2", "rx12"), set()),
    "wr-process (issue 21)": (
        in_turn(tx("rx1ay1", client=1), tx("ry1", client=2), tx("ax1", client=2)),
        {"G1c-process"},
    ),
    "TiDB, the paper's example (histories/paper-example.edn)": (
        in_turn(
            *listed(
                [
                    *(("append", 253, element) for element in (1, 3, 4)),
                    *(("append", 255, element) for element in (2, 3, 4, 5)),
                    *(("append", 256, element) for element in (1, 2)),
                ],
                [("append", 255, 8), ("read", 253, [1, 3, 4])],
                [
                    ("append", 256, 4),
                    ("read", 255, [2, 3, 4, 5, 8]),
                    ("read", 256, [1, 2, 4]),
                    ("read", 253, [1, 3, 4]),
                ],
                [("append", 250, 10), ("read", 253, [1, 3, 4]), ("read", 255, [2, 3, 4, 5]), ("append", 256, 3)],
            )
        ),
        {"G-single"},
    ),
    "snapshot isolation without G-single (histories/si-without-g-single.edn)": (
        in_turn(
            *listed(
                [("append", 9, 2)],
                [("append", 8, 1), ("read", 9, [])],
                [("read", 6, []), ("read", 8, []), ("append", 9, 5)],
                [("append", 6, 2), ("read", 9, [2])],
            )
        ),
        {"G2-item"},
    ),
}


@pytest.mark.parametrize("example", PUBLISHED)
def test_the_verdict_is_the_published_one(example: str) -> None:
    published, expected = PUBLISHED[example]
    assert set(check(published).times) == expected


def test_a_single_g_single_is_found_in_a_sea_of_other_cycles() -> None:
    """Elle's unfindable_g_single: a ring of 1,000 writes with one read that misses, among 29,000 other transactions."""
    size, noise = 1000, 30
    specs: list[Spec] = []
    for number in range(size):
        more: Spec = [("append", number, 0)]
        if number == 0:
            more = [("append", "anti", 1)]
        elif number == size - 1:
            more = [("read", "anti", [])]
        specs.append([("append", "ring", number), *more])
    specs.append([("read", "ring", list(range(size)))])
    for number in range(1, size - 1):
        specs += [[("append", number, element)] for element in range(1, noise - 2)]
        specs.append([("read", number, list(range(noise - 2))), ("read", f"anti{number}", [])])
        specs.append([("append", f"anti{number}", 0), ("read", "ring", [])])
    whole: History = history(*listed(*specs))
    assert "G-single" in check(whole).times
