import errno
import json
import os

import joblib
import pytest

from nnunetv2_conflunet.utilities import plans
from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import atomic_path, read_json, write_json
from nnunetv2_conflunet.utilities.parallel import run_cases


def test_a_file_appears_whole(tmp_path):
    with atomic_path(tmp_path / "new" / "a.nii.gz", ".nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz") and temporary.name.startswith(".")
        temporary.write_text("content")
        assert not (tmp_path / "new" / "a.nii.gz").exists()
    assert [i.name for i in (tmp_path / "new").iterdir()] == ["a.nii.gz"]


def test_after_an_error_the_old_file_stands(tmp_path):
    (tmp_path / "a.txt").write_text("old")

    def write_half():
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_json(tmp_path):
    write_json({"a": [1, None]}, tmp_path / "a.json")
    assert read_json(tmp_path / "a.json") == json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None]}


@pytest.mark.parametrize(
    "content, reason",
    [
        (b'{"a": 1,}', "Expecting property name"),
        (b'{"a": ', "Expecting value"),
        (b"", "Expecting value"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        ('{"a": "Müller"}'.encode("latin-1"), "can't decode byte"),
    ],
)
def test_broken_json_is_named(tmp_path, content, reason):
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"dataset\.json is not valid JSON \(.*{reason}.*; correct it and save it as"):
        read_json(tmp_path / "dataset.json")


def test_plans_that_stay_half_written_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "READING_PAUSE_S", 0)
    (tmp_path / "plans.json").write_text('{"conflunet": {')
    with pytest.raises(InputError, match=r"plans\.json is not valid JSON"):
        plans.stored_settings(tmp_path / "plans.json")


def test_plans_that_become_whole_meanwhile_are_read(tmp_path, monkeypatch):
    (tmp_path / "plans.json").write_text('{"conflunet": {')
    whole = '{"conflunet": {"alpha": 1}}'
    monkeypatch.setattr(plans.time, "sleep", lambda _: (tmp_path / "plans.json").write_text(whole))
    assert plans.stored_settings(tmp_path / "plans.json") == {"alpha": 1}


def _raise():
    raise InputError("ms_1 is missing; add it.")


@pytest.mark.parametrize("command, status", [(lambda: None, 0), (lambda: 0, 0), (lambda: 3, 3), (_raise, 1)])
def test_exit_status(command, status, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_command(command)
    assert exit_.value.code == status
    error = capsys.readouterr().err
    assert error == ("Error: ms_1 is missing; add it.\n" if status == 1 else "")


def _full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _read_only():
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), ".a.tmp", None, "a.csv")


@pytest.mark.parametrize(
    "command, message", [(_full, "No space left on device."), (_read_only, "a.csv: Read-only file system.")]
)
def test_a_file_that_cannot_be_written_in_the_end_is_one_sentence(command, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_command(command)
    assert exit_.value.code == 1
    assert capsys.readouterr().err == f"Error: {message}\n"


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0)


def test_list_some():
    assert list_some(["a", "b"]) == "a, b"
    assert list_some(list("abcdef"), limit=2) == "a, b and 4 more"


def _power(base, exponent):
    return base**exponent


@pytest.mark.parametrize("processes", [1, 2, 99])
def test_results_come_in_order(processes):
    assert run_cases(_power, [(i, 2) for i in range(5)], processes, "test", progress=False) == [0, 1, 4, 9, 16]


def test_no_cases():
    assert run_cases(_power, [], 4, "test") == []


def test_an_error_in_a_case_is_raised():
    with pytest.raises(TypeError):
        run_cases(_power, [(1, 2), ("a", "b")], 2, "test", progress=False)


def test_another_backend_takes_the_work():
    with joblib.parallel_config(backend="threading"):
        assert run_cases(_power, [(3, 3)], 2, "test", progress=False) == [27]
