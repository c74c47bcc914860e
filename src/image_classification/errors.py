"""The one error that a user can cause."""


class UserError(Exception):
    """Something the user can mend; its text is one line that names the culprit and the way out."""
