"""Image captioning with a frozen CNN and an LSTM: data → features → models → search → metrics."""

__version__ = "0.1.0"
