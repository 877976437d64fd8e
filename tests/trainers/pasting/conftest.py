from functools import partial

import pytest
from pasting import store_in


@pytest.fixture
def make_store(tmp_path):
    """:func:`pasting.store_in` a folder of the test."""
    return partial(store_in, tmp_path / "case.npz")
