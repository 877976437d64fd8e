"""One function over many cases, in parallel, with a progress bar."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from joblib import Parallel, delayed
from tqdm import tqdm

from nnunetv2_conflunet.utilities.errors import InputError


def run_cases(function: Callable, arguments: Iterable[tuple], num_processes: int, description: str) -> list[Any]:
    """Call ``function(*a)`` for each tuple of arguments through joblib and return the results in order.

    Inside ``joblib.parallel_config`` another backend can take over. An error in one case ends the run;
    :func:`try_cases` continues.

    >>> run_cases(pow, [(2, 3), (3, 2)], 1, "Powers")
    [8, 9]
    """
    arguments = list(arguments)
    jobs = max(1, min(num_processes, len(arguments)))
    with Parallel(n_jobs=jobs, return_as="generator") as parallel:
        results = parallel(delayed(function)(*given) for given in arguments)
        return list(tqdm(results, total=len(arguments), desc=description, disable=not arguments))


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
    calls = [(function, survived, *arguments) for arguments in cases.values()]
    outcomes = dict(zip(cases, run_cases(_outcome, calls, num_processes, description), strict=True))
    results = {case: outcome for case, outcome in outcomes.items() if not isinstance(outcome, _Fault)}
    return results, {case: outcome.text for case, outcome in outcomes.items() if isinstance(outcome, _Fault)}


class _Fault(NamedTuple):
    text: str


def _outcome(function: Callable, survived: type[Exception], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except survived as error:
        # As text, since not every error can be pickled.
        return _Fault(str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}")
