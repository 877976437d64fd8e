from pathlib import Path

import pytest
from support import UNWRITABLE, unwritable

from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.writable import require_writable


def test_places_that_can_be_written_are_left_as_they_are(tmp_path):
    (tmp_path / "old.csv").write_text("old")
    require_writable(tmp_path / "old.csv", tmp_path / "new.csv", tmp_path / "new" / "folder" / "a.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["old.csv"] and (tmp_path / "old.csv").read_text() == "old"


@pytest.mark.parametrize("kind", UNWRITABLE)
def test_places_that_cannot_be_written(tmp_path, kind):
    with unwritable(kind, tmp_path) as place, pytest.raises(InputError, match=UNWRITABLE[kind]):
        require_writable(tmp_path / "a.csv", place / "b.csv")


def test_a_folder_in_the_place_of_a_file(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(InputError, match=r"a\.csv is a folder, but a file is to be written there"):
        require_writable(tmp_path / "a.csv")


def test_a_device_is_not_replaced():
    with pytest.raises(InputError, match="/dev/null is not a regular file, but a file is to be written there"):
        require_writable(Path("/dev/null"))


def test_a_link_to_nothing_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "absent")
    with pytest.raises(InputError, match="out is not a folder"):
        require_writable(tmp_path / "out" / "a.csv")


def test_relative_paths_are_those_of_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").write_text("old")
    with pytest.raises(InputError, match="out is not a folder"):
        require_writable(Path("out", "a.csv"))
