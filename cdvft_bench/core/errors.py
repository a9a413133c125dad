"""The exceptions that mean "the user can mend this"."""

import errno


class UserError(ValueError):
    """Bad input: the message names the value, the rule and the way out. The CLI prints it without a traceback."""


class MisfitError(UserError):
    """A value that is right in itself, but does not fit the subject's widths."""


def one_line(error: object, kind: str = "", most: int = 500) -> str:
    """An error's type, or another ``kind``, and at most so many characters of what it says, on one printable line."""
    kind = kind or type(error).__name__
    text = " ".join(str(error).split())[:most].encode(errors="backslashreplace").decode()
    return f"{kind}: {text}" if text else kind


_SHORT = {
    errno.ENOMEM: "memory ran out",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk's quota is used up",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.EAGAIN: "no further process or thread may be started",
}
_NO_MEMORY = ("can't allocate memory", "not enough memory", "size calculation overflowed", "out of memory")
"""In the messages of torch, whose allocators raise a RuntimeError."""


def shortage(error: BaseException) -> str | None:
    """One line on what the machine, or the encoding of its texts, lacks; None where the error is of another kind.

    A net below the checks that name a value: whatever a command does may need more than there is.
    """
    reason = _SHORT.get(error.errno or 0) if isinstance(error, OSError) else None
    text = str(error)
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[error.start]!a} is no character of {error.encoding}; take it out of the names you gave"
    if "Symlink loop" in text:  # of Path.resolve
        return f"{text.splitlines()[0]:.200}; name another file"
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        reason = _SHORT[errno.ENOMEM]
    if reason is None:
        return None
    told = f" ({text.splitlines()[0]:.200})" if text else ""
    return f"{reason}{told}; free some, or ask for less: fewer tokens, workers or threads, a smaller layer or model"
