import json

import joblib
import pytest

from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import atomic_path, read_json, write_json
from nnunetv2_conflunet.utilities.parallel import run_cases


def test_a_file_appears_whole(tmp_path):
    with atomic_path(tmp_path / "new" / "a.part.txt", ".part.txt") as temporary:
        assert temporary.name.endswith(".part.txt") and temporary.name.startswith(".")
        temporary.write_text("content")
        assert not (tmp_path / "new" / "a.part.txt").exists()
    assert [i.name for i in (tmp_path / "new").iterdir()] == ["a.part.txt"]


def test_after_an_error_the_old_file_stands(tmp_path):
    (tmp_path / "a.txt").write_text("old")

    def write_half():
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        write_half()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_json(tmp_path):
    write_json({"a": [1, None]}, tmp_path / "a.json")
    assert read_json(tmp_path / "a.json") == json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None]}


def _raise():
    raise InputError("ms_1 is missing; add it.")


@pytest.mark.parametrize("command, status", [(lambda: None, 0), (lambda: 0, 0), (lambda: 3, 3), (_raise, 1)])
def test_exit_status(command, status, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_command(command)
    assert exit_.value.code == status
    error = capsys.readouterr().err
    assert error == ("Error: ms_1 is missing; add it.\n" if status == 1 else "")


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
