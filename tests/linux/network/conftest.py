import pytest

from tests.linux import network_lab


@pytest.fixture
def wire():
    with network_lab.wire() as made:
        yield made
