"""The line protocol's codec: bytes in, requests out, as many as one turn takes; and replies as lines of JSON."""

from __future__ import annotations

import re
from typing import Any, Final

from kvd import wire
from kvd.core.codec import Codec, Unreadable
from kvd.core.command import NOTHING, OUTCOME, PAGE, TEXT, TEXTS, Listing, Shape
from kvd.errors import BadRequest, KvdError, SpeaksHttp, TooLarge
from kvd.interfaces import Outcome
from kvd.wire import MAX_LINE, MAX_REPLY

SHORT_BLOCK: Final = 8 * 1024
"""A block of so many bytes is split at once, however many lines it has: the quickest way with short ones."""

MOST_LINES: Final = 256
MOST_BYTES: Final = 64 * 1024
"""Off a longer block, lines are cut one by one until they are so many, or have come to so many bytes."""

NO_LIMIT: Final = 2**62

LINE_BYTES: Final = 80
"""What a line takes in memory beside its text."""

QUICK: Final = 1024
"""Characters of a line that, outside a transaction, takes too little time to look at the clock after each."""

HEAD: Final = 32
"""Bytes of a line that can't be read that are looked at, to see whether it was a START."""

CR: Final = 13


class BadLine:
    """A line that is not a request: it is too long, or not text.

    :param error: what its client is told.
    :param head: how it begins, as far as that can be read.
    """

    def __init__(self, error: KvdError, head: str) -> None:
        self.error: Final = error
        self.head: Final = head


class LineBuffer:
    """Cuts a stream of bytes into lines, in time that is linear in its length.

    :ivar lines: the lines that are cut, in reverse order: :meth:`next_line` takes the last.
    """

    def __init__(self) -> None:
        self.lines: list[str | BadLine] = []
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

    def feed(self, data: bytes) -> bool:
        """Take in what has arrived; whether the end of a line was in it."""
        if self._whole:  # the transport had more to give than was asked for
            self._cut(NO_LIMIT, NO_LIMIT)
        if not self._size and data.endswith(b"\n"):
            self._whole = data
            return True
        end = data.rfind(b"\n") + 1
        if end:
            self._finish(data[:end])
        self._size += len(data) - end
        if self._size <= MAX_LINE + 1:  # the last byte may be the \r of the line's end
            self._partial += data[end:]
        else:
            self._partial += data[end : end + HEAD]
            del self._partial[HEAD:]
        return end > 0

    def _finish(self, lines: bytes) -> None:
        """Put the rest of the unfinished line, and the lines after it, to what waits."""
        if self._size > len(self._partial):
            start = lines.index(b"\n") + 1
            size = self._size + start - (2 if lines[:start].endswith(b"\r\n") else 1)
            self.lines.insert(0, line_too_large(bytes(self._partial), size))
            self._whole = lines[start:]
        else:
            self._whole = bytes(self._partial) + lines
        self._partial.clear()
        self._size = 0

    def cut(self) -> int:
        """Cut off some lines, unless some wait already; how many wait now."""
        if self._whole and not self.lines:
            self._cut(MOST_LINES, MOST_BYTES)
        return len(self.lines)

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

    def next_line(self) -> str | BadLine:
        """Take the line that is next; there must be one in ``lines``."""
        return self.lines.pop()

    def clear(self) -> None:
        """Drop it all."""
        self.lines.clear()
        self._whole = b""
        self._place = 0
        self._partial.clear()
        self._size = 0


def cut_lines(block: bytes) -> list[str | BadLine]:
    """Cut a block of bytes into its lines, without their ends.

    :param block: whole lines; each ends in ``\n``, and one ``\r`` before that belongs to the end.
    """
    try:
        text = block.decode()
    except UnicodeDecodeError:
        return [one_line(line) for line in block.replace(b"\r\n", b"\n").split(b"\n")[:-1]]
    if "\r" in text:  # to look for one character is far quicker than for two
        text = text.replace("\r\n", "\n")
    lines: list[str | BadLine] = []
    lines += text.split("\n")
    lines.pop()
    return lines


def one_line(line: bytes) -> str | BadLine:
    """A line, without its end, as text."""
    if len(line) > MAX_LINE:
        return line_too_large(line[:HEAD], len(line))
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        head, tail = line[:HEAD].decode(errors="replace"), line[-HEAD:].decode(errors="replace")
        if wire.begins_as_http(head) or wire.ends_as_http(tail):
            return BadLine(wire.speaks_http(), "")
        problem = f"the line is not valid UTF-8: byte {error.start} of it is 0x{line[error.start]:02x}"
        return BadLine(BadRequest(problem), head)


def line_too_large(head: bytes, size: int) -> BadLine:
    """What stands for a line over the limit."""
    error = TooLarge(f"the line is {size} bytes; at most {MAX_LINE} bytes are allowed")
    return BadLine(error, head.decode(errors="replace"))


_START: Final = re.compile(r' *(\[\s*")?START\b', re.IGNORECASE | re.ASCII)


def looks_like_start(line: str) -> bool:
    """Whether a line that can't be read was probably meant for a START; what follows it counts on that."""
    return _START.match(line) is not None


class LineCodec(Codec):
    """The line protocol on one connection."""

    def __init__(self) -> None:
        self._input: Final = LineBuffer()
        self._replies: list[str] = []

    def feed(self, data: bytes) -> bool:
        return self._input.feed(data)

    def cut(self) -> int:
        return self._input.cut()

    def ready(self) -> bool:
        return bool(self._input)

    def unfinished(self) -> bool:
        return self._input.unfinished

    def bytes_held(self) -> int:
        return self._input.bytes_held()

    def clear(self) -> None:
        self._input.clear()

    def next_request(self) -> bool:
        line = self._input.next_line()
        if not isinstance(line, str):
            self.quick = False
            raise Unreadable(line.error, looks_like_start(line.head), isinstance(line.error, SpeaksHttp))
        self.quick = len(line) <= QUICK
        try:
            self.name, self.words = wire.parse(line)
        except SpeaksHttp as error:
            raise Unreadable(error, False, True) from None
        except KvdError as error:
            raise Unreadable(error, looks_like_start(line), False) from None
        return self.name != "" or line.strip(" ") != ""

    def print(self, shape: Shape, result: Any) -> None:
        if shape is TEXT:
            text = wire.text_result(result)
        elif shape is NOTHING:
            text = wire.OK
        elif shape is TEXTS:
            text = wire.values_result(result)
        elif shape is OUTCOME:
            outcome: Outcome = result
            text = wire.outcome_result(outcome.committed, outcome.kept)
        elif shape is PAGE:
            page: Listing = result
            text = wire.result({"items": page.items, "next": page.next})
        else:
            text = wire.result(result)
        size = len(text)
        if size > MAX_REPLY:
            wire.too_large_reply()
        self._replies.append(text)
        self.size += size

    def print_error(self, error: KvdError) -> None:
        text = wire.error(error)
        self._replies.append(text)
        self.size += len(text)

    def take(self) -> bytes:
        replies = "".join(self._replies).encode("ascii")
        self._replies.clear()
        self.size = 0
        return replies
