"""The exceptions that mean "the user can mend this"."""


class UserError(ValueError):
    """Bad input: the message names the value, the rule and the way out. The CLI prints it without a traceback."""


class MisfitError(UserError):
    """A value that is right in itself, but does not fit the subject's widths."""
