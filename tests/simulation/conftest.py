import pytest

pytest.importorskip("nilearn", reason="the simulation takes its anatomy from nilearn")
