"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: one line that says what is wrong, where, and what to do.

    Stages print it without a traceback and exit with status 1.
    """
