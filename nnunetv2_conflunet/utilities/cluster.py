"""Sending the cases of a command to a Dask cluster through joblib's backend for Dask."""

import argparse
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from multiprocessing import TimeoutError
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import joblib

import nnunetv2_conflunet
from nnunetv2_conflunet.utilities.errors import InputError, join_faults
from nnunetv2_conflunet.utilities.files import read_json
from nnunetv2_conflunet.utilities.nnunet_folders import is_set, nnunet_folder

SECONDS_TO_ANSWER = 30
# So many entries of each folder are looked up on every worker.
ENTRIES_LOOKED_UP = 20


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--cluster``, see :func:`on_cluster`."""
    text = "send the cases to a Dask cluster instead of -np processes: tcp://host:8786, or a scheduler file FILE.json"
    parser.add_argument("--cluster", metavar="ADDRESS", help=text)


def on_cluster(
    command: Callable[[argparse.Namespace], Any],
    args: argparse.Namespace,
    folders: Mapping[str, str | None] | None = None,
) -> Any:
    """Call a command with its options; if option ``--cluster`` names a Dask cluster, joblib sends the cases there.

    Then relative paths among the options become absolute, and ``np`` is the number of the cluster's processors, at
    least 2. A single case is done in this process.

    Args:
        command: takes the options; runs its cases through joblib.
        args: the options.
        folders: environment variables of nnU-Net that name further folders, each with the option that replaces it.

    Returns:
        What the command returns.

    Raises:
        InputError: Dask is not installed, no cluster answers, or a worker does not, has another version of the
            package or does not see the folders; later, the scheduler is lost, or Dask gives up a case whose workers die
            every time.

    >>> on_cluster(lambda args: args.np, argparse.Namespace(cluster=None, np=2))
    2
    """
    if args.cluster is None:
        return command(args)
    given = {name: _absolute(value) for name, value in vars(args).items()}
    paths = [path for value in given.values() for path in (value if isinstance(value, list) else [value])]
    replaced = {name for name, option_name in (folders or {}).items() if option_name and given[option_name]}
    paths += [nnunet_folder(name) for name in folders or {} if is_set(name) and name not in replaced]
    with _dask(args.cluster, _shared([path for path in paths if isinstance(path, Path)])) as processors:
        return command(argparse.Namespace(**given | {"np": processors}))


def _absolute(value: Any) -> Any:
    if isinstance(value, list):
        return [_absolute(item) for item in value]
    return value.absolute() if isinstance(value, Path) else value


def _shared(paths: Iterable[Path]) -> list[str]:
    """Each folder, or the existing folder that will hold it, and some of its entries."""
    shared = []
    for folder in sorted({next(folder for folder in (path, *path.parents) if folder.is_dir()) for path in paths}):
        # Hidden files may be temporary.
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        shared += [str(path) for path in (folder, *entries[:ENTRIES_LOOKED_UP])]
    return shared


def fault_of_worker(version: str, paths: Iterable[str]) -> str:
    """What a worker lacks, "" if nothing; called on it.

    Args:
        version: of the package, where the command was typed.
        paths: what the worker must see.

    >>> fault_of_worker(nnunetv2_conflunet.__version__, ["/"])
    ''
    """
    if nnunetv2_conflunet.__version__ != version:
        return f"has nnunetv2_conflunet {nnunetv2_conflunet.__version__}, not {version}; install the same version"
    unseen = next((path for path in paths if not os.path.lexists(path)), None)
    return f"does not see {unseen}; use folders that all machines share under the same paths" if unseen else ""


@contextmanager
def _dask(address: str, paths: list[str]) -> Iterator[int]:
    """Within this context, joblib sends its tasks to Dask; gives how many at a time."""
    try:
        import distributed
    except ImportError as error:
        raise InputError(
            "--cluster needs Dask; install the extra dask of nnunetv2_conflunet, or `pip install 'dask[distributed]'`."
        ) from error
    try:
        # Dask itself would wait forever for a file that does not exist.
        found = read_json(address)["address"] if address.endswith(".json") else address
        client = distributed.Client(found, timeout=SECONDS_TO_ANSWER)
    except (OSError, ValueError, ImportError, LookupError, TypeError) as error:
        raise InputError(
            f"No Dask scheduler answers at {address} ({error}). Name the address or file of a running one."
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=SECONDS_TO_ANSWER)
        except distributed.TimeoutError as error:
            raise InputError(f"The Dask cluster {address} has no workers; start some with `dask worker`.") from error
        answers = _answers(client, nnunetv2_conflunet.__version__, paths)
        if faults := {worker: fault for worker, fault in answers.items() if fault}:
            raise InputError(f"Workers of the Dask cluster: {join_faults(faults, 'workers')}")
        try:
            with joblib.parallel_config(backend=_backend(client)):
                # With 1, joblib would call the function itself instead of sending it.
                yield max(2, sum(client.ncores().values()))
        except CancelledError as error:
            raise InputError(f"The Dask scheduler {address} was lost. Start it and the command again.") from error


def _answers(client: Any, *asked: Any) -> dict[str, str]:
    """What each worker lacks, see :func:`fault_of_worker`; each is asked in a thread, so that one may hang."""
    workers, end = sorted(client.ncores()), time.monotonic() + SECONDS_TO_ANSWER
    answers = {}
    with ThreadPool(len(workers)) as pool:
        runs = [
            pool.apply_async(client.run, (fault_of_worker, *asked), {"workers": [worker], "on_error": "return"})
            for worker in workers
        ]
        for worker, run in zip(workers, runs, strict=True):
            try:
                fault = run.get(max(0, end - time.monotonic()))[worker]
                lacking = f"cannot run nnunetv2_conflunet ({fault!r}); install it there"
                answers[worker] = fault if isinstance(fault, str) else lacking
            except TimeoutError:
                answers[worker] = f"does not answer within {SECONDS_TO_ANSWER} s; start it again"
    return answers


def _backend(client: Any) -> Any:
    """Joblib's backend for Dask, which names the case if Dask gives one up."""
    # Here, since it imports Dask.
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        # What else uses joblib within the command, such as scikit-learn, does so in its own process.
        default_n_jobs = 1

        def effective_n_jobs(self, n_jobs: int) -> int:
            return 1 if n_jobs == 1 else max(2, super().effective_n_jobs(n_jobs))

        def compute_batch_size(self) -> int:
            # A worker that dies takes only one case with it.
            return 1

        def submit(self, func: Any, callback: Callable) -> Future:
            [(_, [task], _)] = func.items

            def report_given_up(done: Future) -> None:
                if error := done.exception():
                    callback(
                        InputError(
                            f"{task.case}: Dask gave up this case. Workers that die mostly lack memory: run fewer of "
                            f"them on each machine. {error}"
                        )
                    )

            future = super().submit(func, callback)
            # Joblib never calls back for such a task, and would wait for it forever.
            future.add_done_callback(report_given_up)
            return future

    return Backend(client=client, wait_for_workers_timeout=SECONDS_TO_ANSWER)
