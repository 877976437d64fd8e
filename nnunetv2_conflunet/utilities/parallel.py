"""One function over many cases, in parallel, with a progress bar."""

import pickle
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from joblib import Parallel, delayed
from tqdm import tqdm

from nnunetv2_conflunet.utilities.errors import InputError


def run_cases(function: Callable, cases: Mapping[str, tuple], num_processes: int, description: str) -> list[Any]:
    """Call ``function(*arguments)`` for each case through joblib and return the results in order.

    Inside ``joblib.parallel_config`` another backend can take over (see :mod:`.cluster`). An error in one case ends the
    run; :func:`try_cases` continues.

    Args:
        function: what to call.
        cases: its arguments by the name of the case.
        num_processes: worker processes.
        description: shown with the progress bar.

    Raises:
        InputError: a worker process was killed.

    >>> run_cases(pow, {"a": (2, 3), "b": (3, 2)}, 1, "Powers")
    [8, 9]
    """
    jobs = max(1, min(num_processes, len(cases)))
    # No case waits in a worker, where another one may take it down.
    try:
        with Parallel(n_jobs=jobs, pre_dispatch="n_jobs", return_as="generator") as parallel:
            results = parallel(delayed(_call)(Task(case, function, arguments)) for case, arguments in cases.items())
            return list(tqdm(results, total=len(cases), desc=description, disable=not cases))
    except BrokenProcessPool as error:
        raise InputError(
            f"{description}: a worker process was killed, mostly for lack of memory; run fewer of them with -np."
        ) from error


def try_cases(
    function: Callable,
    cases: Mapping[str, tuple],
    num_processes: int,
    description: str,
    *,
    survived: type[Exception] = InputError,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Call a function for each case like :func:`run_cases`, but continue if a case fails.

    Args:
        function: what to call.
        cases: its arguments by the name of the case.
        num_processes: worker processes.
        description: shown with the progress bar.
        survived: errors that end only their own case; any other is raised.

    Returns:
        The results by case, and the fault of each failed case, both in the order of `cases`: the message of an
        InputError, or type and message of any other error.

    >>> try_cases(divmod, {"a": (7, 2), "b": (7, 0)}, 1, "Dividing", survived=ArithmeticError)[0]
    {'a': (3, 1)}
    """
    calls = {case: (function, survived, *arguments) for case, arguments in cases.items()}
    outcomes = dict(zip(cases, run_cases(_outcome, calls, num_processes, description), strict=True))
    results = {case: outcome for case, outcome in outcomes.items() if not isinstance(outcome, _Fault)}
    return results, {case: outcome.text for case, outcome in outcomes.items() if isinstance(outcome, _Fault)}


class Task(NamedTuple):
    """The call of one case, as joblib gets it.

    One tuple, since joblib's Dask backend would keep an argument like a class on one worker only, and lose it with that
    worker.
    """

    case: str
    function: Callable
    arguments: tuple


def _call(task: Task) -> Any:
    try:
        return task.function(*task.arguments)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            # Dask would wait forever for an error that cannot be sent.
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise


class _Fault(NamedTuple):
    text: str


def _outcome(function: Callable, survived: type[Exception], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except survived as error:
        # As text, since not every error can be pickled.
        return _Fault(str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
