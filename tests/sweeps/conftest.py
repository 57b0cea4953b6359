import pytest
from sweeps_writing import write_sweep


@pytest.fixture
def sweep(tmp_path):
    """The folder of a sweep."""
    return write_sweep(tmp_path / "grid")
