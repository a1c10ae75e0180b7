import pytest
from gateway import Gateway


@pytest.fixture
def gateway():
    """A gateway for one test."""
    running = Gateway()
    yield running
    running.close()


@pytest.fixture(scope="module")
def shared():
    """A gateway that the tests of a module share, for those that change nothing but their own function."""
    running = Gateway()
    yield running
    running.close()
