"""What a client has sent and has no answer yet: bytes in, lines out, as many as one turn takes."""

from __future__ import annotations

from typing import Final

from kvd.wire import HEAD, MAX_LINE, Refused, cut_lines, line_too_large

BATCH: Final = 64 * 1024
"""Bytes that are cut into lines for one turn."""

FEW: Final = 256
"""Lines that they may be; else it is SHORT bytes, for short lines take several times their bytes of memory."""

SHORT: Final = 8 * 1024

LINE_BYTES: Final = 80
"""What a line takes in memory beside its text."""


def is_one_turn(data: bytes) -> bool:
    """Whether so much is cut into lines at once."""
    return len(data) <= SHORT or (len(data) <= BATCH and data.count(b"\n") <= FEW)


class LineBuffer:
    """Cuts a stream of bytes into lines, in time that is linear in its length.

    :ivar lines: the lines that are cut, the next one last; whoever answers them pops them.
    """

    def __init__(self) -> None:
        self.lines: list[str | Refused] = []
        self._whole = b""  # whole lines that are not cut yet, from _place on
        self._place = 0
        self._partial = bytearray()  # a line whose end has not come; its head, if it is too long
        self._size = 0  # the length of that line

    def __bool__(self) -> bool:
        """Whether lines wait to be answered."""
        return bool(self.lines or self._whole)

    @property
    def holds(self) -> bool:
        """Whether anything is left: lines, or the beginning of one."""
        return bool(self.lines or self._whole or self._size)

    @property
    def unfinished(self) -> bool:
        """Whether the end of a line has not come yet."""
        return self._size > 0

    def bytes_held(self) -> int:
        """What it takes in memory."""
        return len(self._partial) + len(self._whole) + LINE_BYTES * len(self.lines)

    def feed(self, data: bytes) -> None:
        """Take in what has arrived."""
        while self._whole:  # the transport had more to give than was asked for
            self._cut()
        if not self._size and data.endswith(b"\n"):
            self._whole = data
            return
        end = data.rfind(b"\n") + 1
        if end:
            self._finish(data[:end])
        self._size += len(data) - end
        if self._size <= MAX_LINE + 1:  # the last byte may be the \r of the line's end
            self._partial += data[end:]
        else:
            self._partial += data[end : end + HEAD]
            del self._partial[HEAD:]

    def _finish(self, lines: bytes) -> None:
        """Put the rest of the unfinished line, and the lines behind it, to what waits."""
        if self._size > len(self._partial):
            start = lines.index(b"\n") + 1
            size = self._size + start - (2 if lines[:start].endswith(b"\r\n") else 1)
            self.lines.insert(0, line_too_large(bytes(self._partial), size))
            self._whole = lines[start:]
        else:
            self._whole = bytes(self._partial) + lines
        self._partial.clear()
        self._size = 0

    def cut(self) -> None:
        """See that there are lines to answer, if any wait."""
        if self._whole and not self.lines:
            self._cut()

    def _cut(self) -> None:
        whole, start = self._whole, self._place
        end = _end_of_lines(whole, start, BATCH)
        if end - start > SHORT and whole.count(b"\n", start, end) > FEW:
            end = _end_of_lines(whole, start, SHORT)
        lines = cut_lines(whole[start:end])
        lines.reverse()
        self.lines[:0] = lines
        self._place = end
        if end == len(whole):
            self._whole = b""
            self._place = 0

    def clear(self) -> None:
        """Drop it all."""
        self.lines.clear()
        self._whole = b""
        self._place = 0
        self._partial.clear()
        self._size = 0


def _end_of_lines(whole: bytes, start: int, size: int) -> int:
    """Where whole lines of at most that size end, or the one line that is longer."""
    if len(whole) - start <= size:
        return len(whole)
    return whole.rfind(b"\n", start, start + size) + 1 or whole.index(b"\n", start) + 1
