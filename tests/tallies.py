"""What tests count, in all processes of a run, and say at its end (conftest.py)."""

from collections import Counter

faults = Counter()
inputs_tried: dict[str, str] = {}
