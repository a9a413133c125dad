"""What a reader had to mend or leave out, gathered while it reads and said once in the summary's notes."""

from collections import Counter


class Notes:
    """Kinds of mends and omissions with how often each was met, and sentences of their own."""

    def __init__(self) -> None:
        self.mended: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.sentences: list[str] = []

    def mend(self, what: str, times: int = 1) -> None:
        """Something was wrong in the file and was put right, e.g. "a trailing comma"."""
        self.mended[what] += times

    def leave_out(self, what: str, times: int = 1) -> None:
        """Something of the file is not in the analysis, e.g. "events without a time were"."""
        if times:
            self.left_out[what] += times

    def say(self, sentence: str) -> None:
        """A sentence of its own, once."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)

    def lines(self) -> tuple[str, ...]:
        """All of it, a line each."""
        lines = list(self.sentences)
        if self.mended:
            said = "; ".join(what if n == 1 else f"{what} ({n:,} times)" for what, n in self.mended.items())
            lines.append(f"mended while reading: {said}")
        lines += [f"{n:,} {what} left out" for what, n in self.left_out.items()]
        return tuple(lines)
