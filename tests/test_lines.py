"""Bytes in, lines out: none is lost or changes places, and no more is cut at once than a turn takes."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from kvd.lines import BATCH, FEW, SHORT, LineBuffer, is_one_turn

LINES = st.lists(st.one_of(st.integers(0, 40), st.integers(0, 3000), st.sampled_from([SHORT, BATCH, BATCH + 1])))


def line(number: int, size: int) -> str:
    return f"{number} ".ljust(size, "x")


@given(LINES, st.lists(st.integers(1, 40_000), min_size=1), st.booleans())
@example([10] * 3000, [100_000], False)
@example([2000] * 300, [10, 300_000], True)
@example([BATCH, BATCH - 10, 5, 5], [BATCH], True)
def test_lines_come_out_as_they_went_in_some_at_a_time(sizes: list[int], packets: list[int], eager: bool) -> None:
    lines = [line(*each) for each in enumerate(sizes)]
    stream = "".join(f"{each}\n" for each in lines).encode()
    buffer = LineBuffer()
    found: list[object] = []

    def take() -> None:
        before = len(buffer.lines)
        buffer.cut()
        if not before:
            cut = buffer.lines
            size = sum(len(str(each)) + 1 for each in cut)
            assert len(cut) <= 1 or (size <= BATCH and (len(cut) <= FEW or size <= SHORT))
        while buffer.lines:
            found.append(buffer.lines.pop())

    place = 0
    while place < len(stream):
        size = packets[place % len(packets)]
        buffer.feed(stream[place : place + size])
        place += size
        if eager:
            take()
    assert not buffer.unfinished
    while buffer:
        take()
    assert found == lines
    assert not buffer.holds
    assert buffer.bytes_held() == 0


def test_what_is_one_turn_is_cut_at_once() -> None:
    for data in (b"x\n" * (SHORT // 2), b"x" * (BATCH - 1) + b"\n", b"\n" * (FEW - 1) + b"x" * (BATCH - FEW) + b"\n"):
        assert is_one_turn(data)
        buffer = LineBuffer()
        buffer.feed(data)
        buffer.cut()
        assert len(buffer.lines) == data.count(b"\n")
    for data in (b"x\n" * (SHORT // 2 + 1), b"x" * BATCH + b"\n", b"\n" * FEW + b"x" * SHORT + b"\n"):
        assert not is_one_turn(data)
