"""The one exception that tells a user what is wrong with the input."""


class InputError(ValueError):
    """Input that cannot be used: the message names the file or case, what is wrong and what to do.

    Commands print the message without a traceback and exit with status 1 (see :mod:`.commands`).
    """


def list_some(items: list[str], limit: int = 10) -> str:
    """The first `limit` items, comma separated, with the number of those left out."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
