"""The one error that a user's input can cause; command lines print its sentence and exit with 2."""


class InputError(ValueError):
    """Something the user gave is unusable. The message names the file or field, what was wrong, and the remedy."""
