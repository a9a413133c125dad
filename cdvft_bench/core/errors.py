"""The one exception that means "the user can mend this"."""


class UserError(ValueError):
    """Bad input: the message names the value, the rule and the way out. The CLI prints it without a traceback."""
