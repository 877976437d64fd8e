import errno
import json
import os
import shutil
import signal

import joblib
import numpy as np
import pytest
from matplotlib.figure import Figure
from support import assert_whole_or_as_before

from nnunetv2_conflunet.utilities.commands import run_command
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import (
    atomic_path,
    is_file_name,
    moved_together,
    read_json,
    write_json,
    write_texts,
)
from nnunetv2_conflunet.utilities.parallel import run_cases, try_cases


def test_a_file_appears_whole(tmp_path):
    with atomic_path(tmp_path / "new" / "a.part.txt", ".part.txt") as temporary:
        assert temporary.name.endswith(".part.txt") and temporary.name.startswith(".")
        temporary.write_text("content")
        assert not (tmp_path / "new" / "a.part.txt").exists()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.part.txt"]


def test_files_of_several_folders_appear_together(tmp_path):
    old, new = tmp_path / "old", tmp_path / "deep" / "new"
    old.mkdir()
    (old / "a.txt").write_text("before")
    for fails in (True, False):
        try:
            with moved_together([old, new, old]) as unfinished:
                for folder, hidden in unfinished.items():
                    assert hidden.parent == folder and hidden.name.startswith(".")
                    (hidden / "a.txt").write_text("after")
                assert (old / "a.txt").read_text() == "before" and not (new / "a.txt").exists()
                if fails:
                    raise InputError("one case is broken")
        except InputError:
            assert [path.name for path in old.iterdir()] == ["a.txt"] and not new.exists()
            assert (old / "a.txt").read_text() == "before"
    assert [[path.name for path in folder.iterdir()] for folder in (old, new)] == [["a.txt"], ["a.txt"]]
    assert (old / "a.txt").read_text() == (new / "a.txt").read_text() == "after"


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


def _write_heads(path):
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, a=np.random.default_rng(0).random(4000))


def _write_figure(path):
    figure = Figure()
    figure.subplots().plot([1, 3, 2])
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


WRITERS = {
    "a.json": lambda path: write_json(list(range(3000)), path),
    "a.html": lambda path: write_texts({path: "<p>" * 5000}),
    "a.npz": _write_heads,
    "a.png": _write_figure,
}


@pytest.mark.parametrize("room", [0, 4096])
@pytest.mark.parametrize("name", WRITERS)
def test_on_a_full_disk_the_old_file_stands(disk, name, room):
    assert_whole_or_as_before(disk, lambda: WRITERS[name](disk.folder / name), room)


@pytest.mark.parametrize("too_long", ["a.csv", "b.json", "c.json"])
def test_texts_appear_all_or_not_at_all(disk, too_long):
    def write():
        sizes = {name: 5000 if name == too_long else 3 for name in ("a.csv", "b.json", "c.json")}
        write_texts({disk.folder / name: "1\n" * size for name, size in sizes.items()})

    assert_whole_or_as_before(disk, write, 4096)
    assert (disk.folder / too_long).stat().st_size == 10_000


def test_texts_are_written_as_they_are_and_the_last_one_comes_last(tmp_path, monkeypatch):
    renamed = []
    replace_file = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: renamed.append(new.name) or replace_file(old, new))
    write_texts({tmp_path / "b.csv": "x\r\nä\n", tmp_path / "a.json": "{}"})
    assert renamed == ["b.csv", "a.json"]
    assert (tmp_path / "b.csv").read_bytes() == b"x\r\n\xc3\xa4\n"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace_file = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append("flushed") or fsync(file))
    monkeypatch.setattr(os, "replace", lambda *names: done.append("renamed") or replace_file(*names))
    write_json([1], tmp_path / "a.json")
    assert done == ["flushed", "renamed"]


def test_a_disk_that_fails_while_flushing_is_noticed(tmp_path, monkeypatch):
    write_json([1], tmp_path / "a.json")

    def failing(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(InputError, match=r"a\.json cannot be written completely \(Input/output error\)"):
        write_json([2], tmp_path / "a.json")
    assert read_json(tmp_path / "a.json") == [1] and len(list(tmp_path.iterdir())) == 1


def test_a_place_that_is_none_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/a\.json cannot be written \((File exists|Not a directory)"):
        write_json([1], tmp_path / "file" / "a.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InputError, match=r"folder\.json cannot be written \(Is a directory\)"):
        write_json([1], tmp_path / "folder.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.json"]


def test_a_file_that_the_block_cannot_read_is_named_and_not_the_one_it_writes(tmp_path):
    (tmp_path / "folder").mkdir()
    for source, reason in (("missing.nii", "No such file or directory"), ("folder", "Is a directory")):
        with (
            pytest.raises(InputError, match=rf"^\S*/{source} cannot be used \({reason}\)\. Check that it is there"),
            atomic_path(tmp_path / "a.nii") as temporary,
        ):
            shutil.copyfile(tmp_path / source, temporary)
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_copy_on_a_full_disk_blames_the_copy(disk, tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(10_000))
    with (
        disk.room(4096),
        pytest.raises(InputError, match=r"b\.bin cannot be written completely"),
        atomic_path(disk.folder / "b.bin") as temporary,
    ):
        shutil.copyfile(tmp_path / "a.bin", temporary)


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


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 99])
def test_results_come_in_order(processes):
    assert run_cases(_power, {str(i): (i, 2) for i in range(5)}, processes, "test") == [0, 1, 4, 9, 16]


def test_no_cases():
    assert run_cases(_power, {}, 4, "test") == []


@pytest.mark.slow
def test_an_error_in_a_case_is_raised():
    with pytest.raises(TypeError):
        run_cases(_power, {"a": (1, 2), "b": ("a", "b")}, 2, "test")


def _die(number):
    if number:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_sentence():
    with pytest.raises(InputError, match=r"^test: a worker process was killed, mostly for lack of memory; run fewer"):
        try_cases(_die, {"a": (0,), "b": (1,)}, 2, "test", survived=Exception)


class _Unsendable(Exception):
    def __reduce__(self):
        raise TypeError("cannot be pickled")


def _fail(*_):
    raise _Unsendable("no space")


def test_an_error_that_cannot_be_sent_is_sent_as_text():
    with pytest.raises(RuntimeError, match=r"^_Unsendable: no space$"):
        run_cases(_fail, {"a": ()}, 1, "test")


def _refuse_odd(number):
    if number % 2:
        raise InputError(f"{number} is odd")
    return number // (number - 2)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_case_that_fails_does_not_end_the_others(processes):
    cases = {"a": (3,), "b": (4,), "c": (5,), "d": (6,)}
    results, faults = try_cases(_refuse_odd, cases, processes, "test")
    assert list(results.items()) == [("b", 2), ("d", 1)]
    assert list(faults.items()) == [("a", "3 is odd"), ("c", "5 is odd")]
    assert try_cases(_refuse_odd, {}, processes, "test") == ({}, {})


def test_errors_that_are_no_input_error_end_all_unless_they_are_to_be_survived():
    with pytest.raises(ZeroDivisionError):
        try_cases(_refuse_odd, {"a": (2,), "b": (4,)}, 1, "test")
    results, faults = try_cases(_refuse_odd, {"a": (2,), "b": (4,), "c": (1,)}, 1, "test", survived=Exception)
    assert results == {"b": 2}
    assert faults["c"] == "1 is odd" and faults["a"].startswith("ZeroDivisionError: ")


def test_another_backend_takes_the_work():
    with joblib.parallel_config(backend="threading"):
        assert run_cases(_power, {"a": (3, 3)}, 2, "test") == [27]


@pytest.mark.parametrize("name", ["a", "ms 01", ".a", "..a", "a..", "=1+1", "a\n", "ä"])
def test_names_of_files(name):
    assert is_file_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "/", "/a", "a/", "a/b", "../a", "a/..", "a\0", 3, None, ["a"]])
def test_what_is_no_name_of_a_file(name):
    assert not is_file_name(name)
