"""Image captioning with a frozen CNN and an LSTM: data → features → models → search → metrics."""

__version__ = "0.1.0"


class UserError(ValueError):
    """An error that the user can put right: what is wrong, where, and what to type.

    The commands print its message without a traceback and exit with 1.
    """
