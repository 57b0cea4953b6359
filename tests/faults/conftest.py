"""The last line of a run says how many faults there were, and that nothing was lost."""

from collections import Counter

import pytest

counts = Counter()


@pytest.fixture(scope="session")
def injected():
    """Where faults are counted, and what came of them."""
    return counts


@pytest.hookimpl(trylast=True)
def pytest_unconfigure():
    """Print the count after everything else."""
    if counts:
        told = [f"{key}: {counts[key]}" for key in ("checkpoints lost", "half-written files read")]
        told += [f"features of another image: {counts['features of another image']}"]
        print(f"faults injected: {counts['faults injected']}; {'; '.join(told)}")
