"""Cases on a Dask cluster of this machine, with workers that die, lack the package, or do not see the files.

What talks to a cluster runs in a process of its own that is ended after a while, so that no test can wait forever.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from support import balls, write_nifti

import nnunetv2_conflunet
from nnunetv2_conflunet.commands import evaluate
from nnunetv2_conflunet.utilities import cluster as on_clusters
from nnunetv2_conflunet.utilities.cluster import fault_of_worker, on_cluster
from nnunetv2_conflunet.utilities.errors import InputError

RESULTS = ("summary_instances.json", "cases.csv", "lesions.csv")
SECONDS = 480
# One case whose first worker dies, as for lack of memory; loaded by the workers.
DYING_CASE = """
import os, signal
from pathlib import Path
from nnunetv2_conflunet.evaluation.cohort import cases

def dask_setup(worker):
    evaluate_pair, marker = cases.evaluate_pair, Path({marker!r})

    def die_once(pair, *others):
        if pair.case == "MS_5" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluate_pair(pair, *others)

    cases.evaluate_pair = die_once
"""
PRELUDE = """
import argparse, os, signal, sys, time
from pathlib import Path
import joblib
import nnunetv2_conflunet
from nnunetv2_conflunet.utilities import cluster
from nnunetv2_conflunet.utilities.cluster import on_cluster
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.parallel import run_cases

cluster.SECONDS_TO_ANSWER = {seconds}

def options(**others):
    return argparse.Namespace(cluster=sys.argv[1], np=3, **others)

def refused(command, **others):
    try:
        on_cluster(command, options(**others))
    except InputError as error:
        print("refused:", error)
"""


@contextmanager
def dask_cluster(folder, *worker, **settings):
    """A scheduler, and a process with workers if options for it are given; gives the scheduler's file."""
    pytest.importorskip("distributed")
    file = folder / "scheduler.json"
    own = {f"DASK_DISTRIBUTED__{name}": value for name, value in settings.items()}
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    # If this process is killed, the scheduler ends by itself, and the workers with it.
    scheduler = ["scheduler", *common, "--port", "0", "--idle-timeout", f"{2 * SECONDS} s"]
    started = []
    try:
        for arguments in [scheduler] + [["worker", *common, "--nthreads", "1", *worker]] * bool(worker):
            command = [sys.executable, "-m", f"distributed.cli.dask_{arguments[0]}", *arguments[1:]]
            with open(folder / f"{arguments[0]}.log", "wb") as log:
                started.append(
                    subprocess.Popen(
                        command, env=os.environ | own, cwd=folder, stdout=log, stderr=log, start_new_session=True
                    )
                )
            wait_until(file.is_file)
        yield file, started[0].pid
    finally:
        for process in started:
            # With the processes that it started.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(SECONDS)


def wait_until(reached):
    end = time.monotonic() + SECONDS
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


def printed(code, *arguments, seconds_to_answer=SECONDS):
    """What Python code prints that sends cases to the cluster named first."""
    command = [sys.executable, "-c", PRELUDE.format(seconds=seconds_to_answer) + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def dask(folder):
    """Two workers, started again when they die."""
    (folder / "preloaded.py").write_text(DYING_CASE.format(marker=str(folder / "died")))
    with dask_cluster(folder, "--nworkers", "2", "--preload", str(folder / "preloaded.py")) as (file, _):
        yield file


@pytest.mark.slow
def test_the_files_of_an_evaluation_are_those_of_one_machine(dask, folder, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for number in range(8):
        centers = rng.integers(6, 26, (3, 3))
        for name, shift in (("reference", 0), ("prediction", 1)):
            write_nifti(balls((32, 32, 32), centers + shift, 5), tmp_path / name / f"MS_{number}.nii.gz")
    code = """
from nnunetv2_conflunet.commands import evaluate
del sys.argv[1]
evaluate.main()
"""
    folders = tmp_path / "reference", tmp_path / "prediction"
    printed(code, dask, *folders, "-o", tmp_path / "there", "--cluster", dask)
    assert (folder / "died").exists()
    command = ["evaluate", *map(str, folders), "-o", str(tmp_path / "here"), "-np", "1"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match=r"^0$"):
        evaluate.main()
    for name in RESULTS:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


@pytest.mark.slow
def test_the_command_gets_absolute_paths_and_its_cases_are_done_on_the_workers_in_order(dask, tmp_path):
    code = """
os.chdir(sys.argv[2])

def command(args):
    processes = run_cases(os.getpid, {str(i): () for i in range(8)}, args.np, "test")
    assert len(set(processes)) <= 2 and os.getpid() not in processes
    assert run_cases(pow, {str(i): (i, 2) for i in range(9)}, args.np, "test") == [i**2 for i in range(9)]
    assert joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2
    return args

given = options(folder=Path("maps"), name="maps", missing=None)
found = on_cluster(command, given)
assert vars(found) == vars(given) | {"folder": Path(sys.argv[2], "maps"), "np": 2}
print("done")
"""
    assert printed(code, dask, tmp_path) == "done\n"


@pytest.mark.slow
def test_workers_that_lack_something_are_named_before_the_work(dask, tmp_path):
    code = """
cluster._shared = lambda paths: [sys.argv[2], sys.argv[2] + "/MS_1.nii.gz"]
refused(lambda args: print("called"))
nnunetv2_conflunet.__version__ = "99"
refused(lambda args: print("called"))
"""
    unseen, version = printed(code, dask, tmp_path).splitlines()
    assert f"does not see {tmp_path}/MS_1.nii.gz; use folders that all machines share" in unseen
    assert f"has nnunetv2_conflunet {nnunetv2_conflunet.__version__}, not 99; install" in version


@pytest.mark.slow
def test_without_workers_and_with_one_that_lacks_the_package(tmp_path, monkeypatch):
    code = 'refused(lambda args: print("called"))'
    stub = tmp_path / "nnunetv2_conflunet"
    stub.mkdir()
    (stub / "__init__.py").write_text("raise ImportError('it is not installed here')")
    with dask_cluster(tmp_path) as (file, _):
        assert "has no workers; start some with `dask worker`" in printed(code, file, seconds_to_answer=5)
    file.unlink()
    original = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with dask_cluster(tmp_path, "--no-nanny") as (file, _):
        monkeypatch.setenv("PYTHONPATH", original)
        assert "it is not installed here" in printed(code, file)


@pytest.mark.slow
def test_a_worker_that_hangs_is_named(tmp_path):
    code = """
import distributed
with distributed.Client(scheduler_file=sys.argv[1]) as client:
    client.wait_for_workers(1)
    ((worker, pid),) = client.run(os.getpid).items()
os.kill(pid, signal.SIGSTOP)
print(worker)
refused(lambda args: print("called"))
"""
    with dask_cluster(tmp_path, "--no-nanny") as (file, _):
        worker, refused = printed(code, file, seconds_to_answer=20).splitlines()
    assert refused == f"refused: Workers of the Dask cluster: {worker}: does not answer within 20 s; start it again"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "settings", "named"),
    [
        (["--nworkers", "2"], {"SCHEDULER__ALLOWED_FAILURES": "1"}, "MS_9"),
        # Results that the only worker still holds are lost with it, so that an earlier case may be named.
        (["--no-nanny"], {"SCHEDULER__NO_WORKERS_TIMEOUT": "1s"}, r"MS_\d"),
    ],
    ids=["restarted", "gone"],
)
def test_a_case_whose_workers_always_die_ends_the_command_and_is_named(workers, settings, named, tmp_path):
    code = """
def work(number):
    if number == last:
        os.abort()

last = 9
refused(lambda args: run_cases(work, {f"MS_{number}": (number,) for number in range(last + 1)}, args.np, "test"))
"""
    with dask_cluster(tmp_path, *workers, **settings) as (file, _):
        assert re.match(rf"refused: {named}: Dask gave up this case\.", printed(code, file))


@pytest.mark.slow
def test_a_scheduler_that_is_lost_ends_the_command(tmp_path):
    code = """
kill = int(sys.argv[2]), signal.SIGKILL
refused(lambda args: run_cases(os.kill, {"a": kill, "b": kill}, args.np, "test"))
"""
    with dask_cluster(tmp_path, "--no-nanny") as (file, pid):
        assert (
            printed(code, file, pid)
            == f"refused: The Dask scheduler {file} was lost. Start it and the command again.\n"
        )


def options(address, **others):
    return argparse.Namespace(cluster=address, np=3, **others)


def test_without_the_option_nothing_changes():
    args = options(None, folder=Path("relative"))
    assert on_cluster(lambda given: given, args) is args


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match="install the extra dask of nnunetv2_conflunet"):
        on_cluster(pytest.fail, options("tcp://a:1"))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://a", "missing.json"])
def test_an_address_that_does_not_answer(address, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(on_clusters, "SECONDS_TO_ANSWER", 1)
    with pytest.raises(InputError, match=f"No Dask scheduler answers at {address}"):
        on_cluster(pytest.fail, options(address))


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_file_that_is_not_of_a_scheduler(content, tmp_path):
    pytest.importorskip("distributed")
    (tmp_path / "scheduler.json").write_text(content)
    with pytest.raises(InputError, match="No Dask scheduler answers"):
        on_cluster(pytest.fail, options(str(tmp_path / "scheduler.json")))


def test_what_a_worker_lacks(tmp_path):
    version = nnunetv2_conflunet.__version__
    (tmp_path / "a.nii.gz").write_text("")
    seen, unseen = str(tmp_path / "a.nii.gz"), str(tmp_path / "b.nii.gz")
    assert fault_of_worker(version, [seen]) == ""
    assert f"does not see {unseen};" in fault_of_worker(version, [seen, unseen])


def test_folders_that_the_workers_must_see(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(on_clusters, "_dask", lambda address, paths: seen.extend(paths) or pytest.skip())
    for name in ("maps", "raw", "results"):
        (tmp_path / name / "inside").mkdir(parents=True)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    (tmp_path / "maps" / ".temporary").touch()
    output, probabilities = tmp_path / "maps" / "inside" / "new" / "er", [tmp_path / "more"]
    (tmp_path / "more").mkdir()
    args = options("tcp://a:1", i=tmp_path / "maps", output=output, probabilities=probabilities, ref=None)
    with pytest.raises(pytest.skip.Exception):
        on_cluster(pytest.fail, args, {"nnUNet_raw": "ref", "nnUNet_results": "i", "nnUNet_preprocessed": None})
    expected = ("maps", "maps/inside", "maps/inside", "more", "raw", "raw/inside")
    assert seen == [str(tmp_path / name) for name in expected]
