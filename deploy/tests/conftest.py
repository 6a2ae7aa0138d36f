"""One Kafka, and one system on it, for all tests."""

from collections.abc import Iterator

import pytest

from kafka import Kafka, kafka
from system import System, system


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with kafka(tmp_path_factory.mktemp("kafka")) as one:
        yield one


@pytest.fixture(scope="session")
def whole(broker: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with system(broker, tmp_path_factory.mktemp("system")) as one:
        yield one
