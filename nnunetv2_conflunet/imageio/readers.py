"""Which of nnU-Net's readers reads a dataset."""

import contextlib
import io
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

from nnunetv2_conflunet.utilities.errors import InputError

# A dataset whose first files are all broken gets the first reader for its file ending.
MAX_EXAMPLES = 5


def find_reader(dataset_json: dict, examples: Iterable[Path]) -> type[BaseReaderWriter]:
    """The reader that nnU-Net chooses for a dataset.

    Args:
        dataset_json: names the file ending, and the reader where nnU-Net must not choose.
        examples: files of the dataset; the first that any reader can read decides between several readers. nnU-Net
            takes the first image. What is missing or broken is left for the reading to report.

    Raises:
        InputError: no reader of nnU-Net is for files with this ending.
    """
    present = (i for i in examples if i.is_file() and i.stat().st_size and not i.name.startswith("._"))
    # nnU-Net prints the traceback of every reader that fails on the example.
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        for example in [*map(str, islice(present, MAX_EXAMPLES)), None]:
            with contextlib.suppress(RuntimeError):
                return determine_reader_writer_from_dataset_json(dataset_json, example, verbose=False)
    raise InputError(f"nnU-Net has no reader for files that end with {dataset_json['file_ending']}.")
