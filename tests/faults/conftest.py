import pytest
from tallies import faults


@pytest.fixture(scope="session")
def injected():
    """Where faults are counted, and what came of them."""
    return faults
