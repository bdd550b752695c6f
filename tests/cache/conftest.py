"""A cache to fill, and one that is filled."""

import pytest

from tests.support.cache_setup import CacheSetup


@pytest.fixture
def setup(tmp_path) -> CacheSetup:
    return CacheSetup(tmp_path)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> CacheSetup:
    setup = CacheSetup(tmp_path_factory.mktemp("cache") / "template")
    setup.encode()
    return setup


@pytest.fixture
def filled(template, tmp_path) -> CacheSetup:
    """Everything is encoded."""
    return template.copy(tmp_path / "copy")
