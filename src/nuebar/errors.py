"""The one exception that a user is meant to read."""

LONGEST = 2000  # characters: a screen


class NuebarError(ValueError):
    """A wrong input, told in one sentence: what was expected, what came, where, and what to do.

    The command line prints the sentence and exits with 2; ``--debug`` shows the traceback. What came may be of any
    length; the beginning and the end of a long sentence say the rest.

    Args:
        sentence: To be read.
    """

    def __init__(self, sentence: object = "") -> None:
        text = str(sentence)
        if len(text) > LONGEST:
            begin, end = text[: LONGEST // 2], text[-LONGEST // 4 :]
            text = f"{begin} … ({len(text) - len(begin) - len(end)} characters left out) … {end}"
        super().__init__(text)
