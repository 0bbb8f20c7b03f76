"""Exceptions whose message is for the user."""


class UserError(Exception):
    """An error that the user can fix; its message says what is wrong, where, and what to do.

    Stages and the command line print the message as one line, without a traceback, and exit with
    status 1.
    """


class MissingFileError(UserError, FileNotFoundError):
    """A file that the user named, or that an earlier stage writes, does not exist."""
