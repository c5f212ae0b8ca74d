"""Emitted source goes to a folder of the tests, not to the user's cache."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLBTC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
