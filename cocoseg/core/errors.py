"""Exceptions whose message is for the user."""


class UserError(Exception):
    """Something the user can fix: one line that says what is wrong, where, and what to do.

    Stages and the command line print it without a traceback and exit with status 1.
    """


class MissingFileError(UserError, FileNotFoundError):
    """A file that the user named or that an earlier stage writes does not exist."""
