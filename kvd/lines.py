"""What a client has sent and has no answer yet: bytes in, lines out, as many as one turn takes."""

from __future__ import annotations

from typing import Final

from kvd.wire import HEAD, MAX_LINE, Refused, cut_lines, line_too_large, one_line

SHORT: Final = 8 * 1024
"""So few bytes are cut into lines at once, however many that are."""

FEW: Final = 256
"""So many lines are cut off what is longer than that; they take several times their bytes of memory."""

BATCH: Final = 64 * 1024
"""No more lines are cut off once they have come to so many bytes."""

CR: Final = 13

LINE_BYTES: Final = 80
"""What a line takes in memory beside its text."""


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
        if len(whole) - start <= SHORT:
            lines = cut_lines(whole[start:])
            end = len(whole)
        else:
            lines = []
            end = start
            while end < len(whole) and len(lines) < FEW and end - start < BATCH:
                begin, stop = end, whole.index(b"\n", end)
                end = stop + 1
                if stop > begin and whole[stop - 1] == CR:
                    stop -= 1
                lines.append(one_line(whole[begin:stop]))
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
