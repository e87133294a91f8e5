"""The one error a user can cause; the command line prints it as a sentence and exits with code 2."""


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do."""
