"""The exception that tells users what is wrong with their input."""

from collections.abc import Mapping, Sequence


class InputError(ValueError):
    """Input that cannot be used: the message names the file or case, says what is wrong, and what to do about it.

    Commands print the message without a traceback and exit with status 1 (see :mod:`.commands`).
    """


def list_some(items: Sequence[object], limit: int = 10) -> str:
    """The first `limit` items, separated by commas, and how many more there are.

    >>> list_some(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    shown = ", ".join(map(str, items[:limit]))
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def list_lines(items: list[str], limit: int = 20) -> str:
    """The first `limit` items, each on an indented line, and how many more there are.

    >>> print(list_lines(["a", "b", "c"], limit=2))
      a
      b
      ... and 1 more
    """
    shown = items[:limit] + ([f"... and {len(items) - limit} more"] if len(items) > limit else [])
    return "\n".join(f"  {item}" for item in shown)


def join_faults(faults: Mapping[str, str], noun: str = "cases") -> str:
    """What is wrong with each case, in one line; cases with the same fault are listed together.

    Args:
        faults: by case.
        noun: what they are called in the plural.

    >>> join_faults({"a": "is broken", "b": "is short", "c": "is broken"})
    '3 cases: a, c: is broken | b: is short'
    """
    cases: dict[str, list[str]] = {}
    for case, text in faults.items():
        cases.setdefault(text, []).append(case)
    joined = " | ".join(f"{list_some(names)}: {text}" for text, names in cases.items())
    return joined if len(faults) == 1 else f"{len(faults)} {noun}: {joined}"
