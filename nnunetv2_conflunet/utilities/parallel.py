"""One function over many cases, in parallel, with a progress bar."""

from collections.abc import Callable, Iterable
from typing import Any

from joblib import Parallel, delayed
from tqdm import tqdm


def run_cases(
    function: Callable, arguments: Iterable[tuple], num_processes: int, description: str, progress: bool = True
) -> list[Any]:
    """Call ``function(*a)`` for each tuple of arguments through joblib and return the results in order.

    The number of processes is a default: inside ``joblib.parallel_config`` another backend takes the work.
    """
    arguments = list(arguments)
    jobs = max(1, min(num_processes, len(arguments)))
    with Parallel(n_jobs=jobs, return_as="generator") as parallel:
        results = parallel(delayed(function)(*i) for i in arguments)
        return list(tqdm(results, total=len(arguments), desc=description, disable=not progress or not arguments))
