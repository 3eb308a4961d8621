"""Bytes in, lines out: none is lost or changes places, and no more is cut at once than a turn takes."""

from __future__ import annotations

from sys import getsizeof

from hypothesis import example, given
from hypothesis import strategies as st

from kvd.core.lines import MOST_BYTES, MOST_LINES, SHORT_BLOCK, LineBuffer

LINES = st.lists(
    st.one_of(st.integers(0, 40), st.integers(0, 3000), st.sampled_from([SHORT_BLOCK, MOST_BYTES, MOST_BYTES + 1]))
)


def line(number: int, size: int) -> str:
    return f"{number} ".ljust(size, "x") + "😀" * (number % 7 == 6)  # which makes Python keep four bytes for each


@given(LINES, st.lists(st.integers(1, 40_000), min_size=1), st.booleans(), st.booleans())
@example([10] * 3000, [100_000], False, False)
@example([2000] * 300, [10, 300_000], True, True)
@example([MOST_BYTES, MOST_BYTES - 10, 5, 5], [MOST_BYTES], True, False)
def test_lines_come_out_as_they_went_in_some_at_a_time(
    sizes: list[int], packets: list[int], eager: bool, crlf: bool
) -> None:
    lines = [line(*each) for each in enumerate(sizes)]
    stream = "".join(each + ("\r\n" if crlf else "\n") for each in lines).encode()
    buffer = LineBuffer()
    found: list[object] = []

    def take() -> None:
        before = len(buffer.lines)
        buffer.cut()
        if not before:
            sizes = [len(str(line)) + 1 for line in buffer.lines]
            assert sum(sizes) <= SHORT_BLOCK or (len(sizes) <= MOST_LINES and sum(sizes[1:]) < MOST_BYTES)
        while buffer.lines:
            assert buffer.bytes_held() >= sum(map(getsizeof, buffer.lines))
            found.append(buffer.next_line())

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
