"""What a client has sent and has no answer yet: bytes in, lines out, as many as one turn takes."""

from __future__ import annotations

from typing import Final

from kvd.wire import HEAD, MAX_LINE, Refused, cut_lines, line_too_large, one_line

SHORT_BLOCK: Final = 8 * 1024
"""A block of so many bytes is split at once, however many lines it has: the quickest way with short ones."""

MOST_LINES: Final = 256
MOST_BYTES: Final = 64 * 1024
"""Off a longer block, lines are cut one by one until they are so many, or have come to so many bytes."""

NO_LIMIT: Final = 2**62

LINE_BYTES: Final = 80
"""What a line takes in memory beside its text."""

CR: Final = 13


class LineBuffer:
    """Cuts a stream of bytes into lines, in time that is linear in its length.

    :ivar lines: the lines that are cut, in reverse order: :meth:`next_line` takes the last.
    """

    def __init__(self) -> None:
        self.lines: list[str | Refused] = []
        self._text = 0  # bytes of memory that the texts of lines took at most when they were cut
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
        held = len(self._partial) + len(self._whole)
        return held + self._text + LINE_BYTES * len(self.lines) if self.lines else held

    def feed(self, data: bytes) -> None:
        """Take in what has arrived."""
        if self._whole:  # the transport had more to give than was asked for
            self._cut(NO_LIMIT, NO_LIMIT)
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
            self._cut(MOST_LINES, MOST_BYTES)

    def _cut(self, most_lines: int, most_bytes: int) -> None:
        whole, start = self._whole, self._place
        if len(whole) - start <= SHORT_BLOCK:
            lines = cut_lines(whole[start:])
            end = len(whole)
        else:
            lines = []
            end = start
            while end < len(whole) and len(lines) < most_lines and end - start < most_bytes:
                begin, stop = end, whole.index(b"\n", end)
                end = stop + 1
                if stop > begin and whole[stop - 1] == CR:
                    stop -= 1
                lines.append(one_line(whole[begin:stop]))
        lines.reverse()
        if not self.lines:
            self._text = 0
        self._text += (end - start) * (1 if whole.isascii() else 4)  # Python's strings have 1 to 4 bytes a character
        self.lines[:0] = lines
        self._place = end
        if end == len(whole):
            self._whole = b""
            self._place = 0

    def next_line(self) -> str | Refused:
        """Take the line that is next; there must be one in ``lines``."""
        return self.lines.pop()

    def clear(self) -> None:
        """Drop it all."""
        self.lines.clear()
        self._whole = b""
        self._place = 0
        self._partial.clear()
        self._size = 0
