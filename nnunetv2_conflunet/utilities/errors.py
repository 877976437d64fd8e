"""The one exception that tells a user what is wrong with the input."""


class InputError(ValueError):
    """Input that cannot be used: the message names the file or case, what is wrong and what to do.

    Commands print the message without a traceback and exit with status 1 (see :mod:`.commands`).
    """


def list_some(items: list[str], limit: int = 10) -> str:
    """The first `limit` items, comma separated, with the number of those left out."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def join_faults(faults: list[str]) -> str:
    """One line of the faults of cases, each ``case: what is wrong``; cases with the same fault are named together."""
    cases: dict[str, list[str]] = {}
    for fault in faults:
        case, _, text = fault.partition(": ")
        cases.setdefault(text, []).append(case)
    joined = " | ".join(f"{list_some(names)}: {text}" for text, names in cases.items())
    return joined if len(faults) == 1 else f"{len(faults)} cases: {joined}"
