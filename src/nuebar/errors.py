"""The one exception that a user is meant to read."""


class NuebarError(ValueError):
    """A wrong input, told in one sentence: what was expected, what came, where, and what to do.

    The command line prints the sentence and exits with 2; ``--debug`` shows the traceback.
    """
