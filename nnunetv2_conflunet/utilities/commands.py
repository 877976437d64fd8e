"""What the commands share."""

import argparse
import sys
from collections.abc import Callable, Mapping

import joblib
from nnunetv2.configuration import default_num_processes

from nnunetv2_conflunet.utilities.errors import InputError


def run_command(command: Callable[[], int | None]) -> None:
    """Run a command and exit with its status: 0 on success, 1 with one line on stderr for an :class:`InputError`.

    Files that the system cannot read or write, as on a full disk, are treated the same way.

    Args:
        command: a function that parses ``sys.argv`` and does the work. Returns None or 0 on success, another number
            if part of the work failed.
    """
    try:
        status = command()
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        status = 1
    except OSError as error:
        # The error of a failed write does not name its file.
        place = error.filename2 or error.filename
        print(f"Error: {f'{place}: ' if place else ''}{error.strerror or error}.", file=sys.stderr)
        status = 1
    sys.exit(status or 0)


def report_failures(failures: Mapping[str, str], n_cases: int) -> int:
    """Print the reason for each case that failed to stderr; returns the exit status, 1 if there are any.

    >>> report_failures({}, 3)
    0
    """
    if failures:
        print(f"Error: {len(failures)} of {n_cases} cases failed:", file=sys.stderr)
        for case, reason in failures.items():
            print(f"  {case}: {reason}", file=sys.stderr)
    return 1 if failures else 0


def add_num_processes(parser: argparse.ArgumentParser, *also: str, default: int | None = None) -> None:
    """Add the option ``-np``; its default is nnU-Net's number of processes, but not more than there are cores.

    Args:
        parser: a parser.
        also: other names of the option.
        default: instead.

    >>> parser = argparse.ArgumentParser()
    >>> add_num_processes(parser, default=2)
    >>> parser.parse_args([]).np, parser.parse_args(["-np", "4"]).np
    (2, 4)
    """
    default = default or min(default_num_processes, joblib.cpu_count())
    text = "number of worker processes"
    parser.add_argument("-np", *also, dest="np", type=number_of_processes, metavar="N", default=default, help=text)


def number_of_processes(text: str) -> int:
    """The value of ``-np``, for argparse.

    >>> number_of_processes("4")
    4
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes; give 1 or more")
    return int(text)
