import pytest
from gateway import SANITIZED, Gateway


def pytest_collection_modifyitems(config, items):
    """Leaves out under ThreadSanitizer what would find no race that another test does not."""
    if SANITIZED:
        repeats = [item for item in items if item.get_closest_marker("repeats")]
        config.hook.pytest_deselected(items=repeats)
        items[:] = [item for item in items if item not in repeats]


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
