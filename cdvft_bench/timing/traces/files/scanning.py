"""Batches of events out of a Chrome trace's text, as it streams by; what JSON refuses is mended event by event.

A batch ends at a ``}`` that a comma and a ``{`` follow. Whether that is really the end of an event the decoder tells:
were it inside of a string or of a nested list, the batch would not be a list. So the text is looked at once.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cdvft_bench.timing.traces.files.decoding import Event, decode, plain_event, raw_decode
from cdvft_bench.timing.traces.files.notes import Notes
from cdvft_bench.timing.traces.files.tolerant import HopelessError, parse_object

LONGEST = 64 << 20
"""Bytes in which an event must end: more is no trace."""
COARSE = 4e9
"""Microseconds from which on a float is too coarse for nanoseconds: absolute times are kept as they are spelled."""

_KEPT = ("deviceProperties", "distributedInfo", "cdvft_bench")  # of what stands beside the events
_EVENTS = re.compile(rb'"traceEvents"\s*:\s*\[')
_BETWEEN = re.compile(rb"\}\s*,?\s*\{")
_NEXT = re.compile(r"\}\s*,?\s*\{\s*[\"'](?:ph|cat|name|pid|tid|ts|dur|args|id|s|bp)[\"']\s*:")
_ENDS = {False: re.compile(r"[\s,\x00]*\][\s\x00]*$"), True: re.compile(r"[\s,\x00]*\]\s*(?:,\s*\"|\}?[\s\x00]*$)")}
# Words that some write for numbers, after a key: inside of a string its quote would be escaped.
_WORD = re.compile(rb'(?<!\\)("\s*:\s*)(-?(?:inf|infinity|nan|n/?a))(?=\s*[,}\]])', re.I)
_GAP = re.compile(r"[\s,\x00]*")


class Scanner:
    """Reads a trace's text once.

    Attributes:
        document: what stands beside the events: the devices, the ranks, what this suite's recorder adds.
        listed: whether a list of events was found.
    """

    def __init__(self, blocks: Iterator[bytes], notes: Notes) -> None:
        self._blocks, self._notes = blocks, notes
        self._buffer = b""
        self._all_read = False
        self._exact = False
        self._ended = False
        self._began_with_brace = False
        self.document: dict[str, Any] = {}
        self.listed = False

    def batches(self) -> Iterator[list[Event]]:
        """The events in the order of the file, some thousand at a time."""
        if not self._find_list():
            return
        self.listed = True
        while not self._ended:
            if self._all_read or len(self._buffer) > LONGEST:
                yield from self._carefully(b"", last=True)
                continue
            before, cut = len(self._buffer), self._cut()
            if cut:
                batch, self._buffer = self._buffer[:cut], self._buffer[cut:]
                yield from self._decoded(batch)
            if len(self._buffer) == before and not self._ended:
                self._more()
        self._finish()

    # --- text -----------------------------------------------------------------------------

    def _more(self) -> bool:
        block = next(self._blocks, b"")
        self._buffer += block
        self._all_read = not block
        return bool(block)

    def _find_list(self) -> bool:
        """Drop the text up to the list of events, and keep of it what is of use."""
        while not self._buffer.lstrip(b" \t\r\n\0") and self._more():
            pass
        self._buffer = self._buffer.lstrip(b" \t\r\n\0")
        if self._buffer.startswith(b"["):
            self._buffer = self._buffer[1:]
            return True
        at = 0
        while True:
            found = _EVENTS.search(self._buffer, at)
            if found:
                head, self._buffer = self._buffer[: found.start()], self._buffer[found.end() :]
                self._began_with_brace = head.startswith(b"{")
                if not self._keep(head.rstrip(b" \t\r\n,") + b"}"):
                    self._notes.mend("what stands before the events is no JSON and was skipped")
                return True
            at = max(0, len(self._buffer) - 4096)  # the name may lie across two blocks
            if len(self._buffer) > LONGEST or not self._more():
                break
        if self._buffer.startswith(b"{") and b'"ph"' in self._buffer:
            self._notes.mend("there is no list around the events")
            return True
        return False

    def _keep(self, data: bytes) -> bool:
        try:
            value = json.loads(data.decode("utf-8", "replace"), strict=False)
        except (ValueError, RecursionError):
            return False
        if isinstance(value, Mapping):
            self.document |= {key: value[key] for key in _KEPT if key in value}
        return True

    def _cut(self) -> int:
        """Where the last event of the buffer that is surely whole ends; 0 where none is."""
        at = len(self._buffer)
        for _ in range(64):  # a "}" inside the last event is followed by something else
            at = self._buffer.rfind(b"}", 0, at)
            if at < 0:
                return 0
            if _BETWEEN.match(self._buffer, at):
                return at + 1
        ends = [found.start() + 1 for found in _BETWEEN.finditer(self._buffer)]
        return ends[-1] if ends else 0

    # --- events ---------------------------------------------------------------------------

    def _decoded(self, batch: bytes) -> Iterator[list[Event]]:
        data = b"[" + batch.lstrip(b" \t\r\n,") + b"]"
        try:
            yield self._exactly(data)
            return
        except (ValueError, RecursionError):
            words = [word.decode() for _, word in _WORD.findall(data)]
        if words:  # whole profilers write them: null for all of them at once
            try:
                yield self._exactly(_WORD.sub(rb"\1null", data))
            except (ValueError, RecursionError):
                pass
            else:
                for word in words:
                    self._notes.mend(f"{word!r} in place of a number")
                return
        yield from self._carefully(batch, last=False)

    def _exactly(self, data: bytes) -> list[Event]:
        events = decode(data, self._exact)
        if not self._exact and [1 for e in events if (t := e.ts).__class__ is float and _coarse(t)]:
            self._exact = True
            events = decode(data, True)
        return events

    def _carefully(self, batch: bytes, last: bool) -> Iterator[list[Event]]:
        """Events one by one; what is left of the batch goes back into the buffer."""
        data = batch or self._buffer
        text = data.decode("utf-8", "replace")
        at = 0
        found: list[Event] = []
        while True:
            gap = _GAP.match(text, at)
            at = gap.end() if gap else at
            if at >= len(text):
                at = len(text)
                break
            if text[at] == "]":
                self._ended = True
                if gap and "," in gap.group() and found:
                    self._notes.mend("a trailing comma")
                at += 1
                break
            if text[at] != "{":
                at = self._skipped(text, at)
                continue
            event, end = self._one(text, at, last)
            if end == at:  # it goes on beyond this text
                break
            at = end
            if event is not None:
                found.append(plain_event(event))
        rest = text[at:].encode("utf-8", "replace")
        if last:
            if not self._ended:
                self._notes.mend("the list of events has no end")
                self._ended = True
                rest = b""
            self._buffer = rest
        else:
            self._buffer = rest + self._buffer
        if found:
            yield found

    def _one(self, text: str, at: int, last: bool) -> tuple[Mapping[str, Any] | None, int]:
        """The object that begins at ``text[at]`` and where it ends: ``at`` itself where that is not in the text."""
        following = _NEXT.search(text, at)
        broken_off = False
        # First up to what looks like the next event: an error counts the lines of all the text that is given.
        for piece in (text[at : following.start() + 1], text[at:]) if following else (text[at:],):
            try:
                event, length = raw_decode(piece, 0, self._exact)
            except (ValueError, RecursionError) as error:
                broken_off = getattr(error, "pos", 0) >= len(piece.rstrip(" \t\r\n\0"))
                if broken_off:  # it looked so to something inside of this event
                    continue
                break
            if not self._exact and _coarse(event.get("ts")):
                self._exact = True
                return self._one(text, at, last)
            return event, at + length
        if following is None and not last:
            return None, at
        limit = following.start() + 1 if following else len(text)
        mends = Notes()
        try:
            event, end, whole = parse_object(text, at, limit, mends)
        except HopelessError:
            self._notes.leave_out("events that are no JSON were")
            return None, limit
        # Of the file's last event it is only sure that it is whole where the list ends behind it.
        if not whole or (following is None and (broken_off or not _ENDS[self._began_with_brace].match(text, end))):
            if following is None:
                self._notes.mend("the file breaks off inside an event, which is left out")
            else:
                self._notes.leave_out("events that are no JSON were")
            return None, limit
        if following is not None:
            end = max(end, limit)
        for what, times in (mends.mended or {"a comma or colon that was missing": 1}).items():
            self._notes.mend(what, times)
        return event, end

    def _skipped(self, text: str, at: int) -> int:
        """Past something in the list that is no event."""
        try:
            _, end = raw_decode(text, at, self._exact)
        except (ValueError, RecursionError):
            end = text.find("{", at + 1)
            bracket = text.find("]", at)
            end = min(e for e in (end, bracket, len(text)) if e >= 0)
            end = max(end, at + 1)
        self._notes.leave_out("entries of the list that are no events were")
        return end

    def _finish(self) -> None:
        """What stands behind the list."""
        while self._more() and len(self._buffer) <= LONGEST:
            pass
        rest = self._buffer.strip(b" \t\r\n\0")
        if self._buffer.rstrip(b" \t\r\n").endswith(b"\0"):
            self._notes.mend("zeros at the end of the file were skipped")
        if not self._began_with_brace:
            if rest:
                self._notes.mend("text after the list of events was skipped")
            return
        if rest.startswith(b","):
            rest = rest[1:]
        if not rest.endswith(b"}"):
            self._notes.mend("the closing brace is missing")
            rest = rest.rstrip(b", \t\r\n") + b"}"
        if not self._keep(b"{" + rest):
            self._notes.mend("what stands behind the events is no JSON and was skipped")


def _coarse(time: Any) -> bool:
    return time.__class__ is float and not -COARSE < time < COARSE and not time.is_integer()
