"""What every command of the package shares."""

import argparse
import sys
from collections.abc import Callable

import joblib
from nnunetv2.configuration import default_num_processes

from nnunetv2_conflunet.utilities.errors import InputError


def run_command(command: Callable[[], int | None]) -> None:
    """Run a command and exit with its status: 0 on success, 1 with one line on stderr for an :class:`InputError`.

    A file that the system cannot read or write, such as on a disk that became full meanwhile, is such an error, too.

    Args:
        command: a function that parses ``sys.argv`` and does the work. Returns None or 0 on success, another number
            where part of the work failed.
    """
    try:
        status = command()
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        status = 1
    except OSError as error:
        # A failed write does not know its file.
        place = error.filename2 or error.filename
        print(f"Error: {f'{place}: ' if place else ''}{error.strerror or error}.", file=sys.stderr)
        status = 1
    sys.exit(status or 0)


def add_num_processes(parser: argparse.ArgumentParser) -> None:
    """Add the option ``-np``: nnU-Net's number of processes, if there are as many cores."""
    parser.add_argument(
        "-np", type=int, default=min(default_num_processes, joblib.cpu_count()), help="number of worker processes"
    )
