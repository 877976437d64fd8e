"""Folders of cases: dataset.json, file ending, reader, and which entries are cases."""

import contextlib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES, determine_reader_writer_from_dataset_json

from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import read_json

ENDINGS = sorted({ending for reader in LIST_OF_IO_CLASSES for ending in reader.supported_file_endings})
# In a folder of volumes these are previews, not cases.
PICTURES = (".png", ".bmp")
# If this many files are all broken, the dataset gets the first reader for its file ending.
MAX_EXAMPLES = 5


@dataclass(frozen=True)
class CaseFolder:
    """The cases of a folder, one file each, named ``<case><file_ending>``.

    Attributes:
        folder: the folder.
        file_ending: of its cases, such as ``.nii.gz``; case-sensitive.
        files: the file of each case, sorted by case.
        passed_over: name -> reason, for every other entry that looks like an image. Hidden files are ignored: they are
            unfinished, or macOS metadata.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as name:
    ...     for file in ("ms_1.nii.gz", "ms_2.nii", "table.csv"):
    ...         (Path(name) / file).touch()
    ...     found = CaseFolder.of(Path(name), ".nii.gz")
    >>> list(found.files), found.passed_over
    (['ms_1'], {'ms_2.nii': 'ends with .nii'})
    """

    folder: Path
    file_ending: str
    files: dict[str, Path]
    passed_over: dict[str, str]

    @classmethod
    def of(cls, folder: Path, file_ending: str) -> "CaseFolder":
        """The cases of an existing folder."""
        files, passed_over = {}, {}
        for entry in _visible(folder):
            ending = file_ending if entry.name.endswith(file_ending) else image_ending(entry.name)
            if ending == file_ending and entry.is_file():
                files[entry.name.removesuffix(ending)] = entry
            elif ending is not None and not entry.exists():
                passed_over[entry.name] = "a link to nothing"
            elif ending is not None:
                passed_over[entry.name] = "a folder" if entry.is_dir() else f"ends with {ending}"
        return cls(folder, file_ending, dict(sorted(files.items())), passed_over)

    @property
    def lost(self) -> dict[str, str]:
        """Skipped entries that are not previews and whose case has no other file here."""
        lost = {}
        for name, why in self.passed_over.items():
            ending = image_ending(name) or self.file_ending
            is_preview = ending.lower() in PICTURES and self.file_ending.lower() not in PICTURES
            if not is_preview and name[: -len(ending)] not in self.files:
                lost[name] = why
        return lost

    @property
    def note(self) -> str:
        """A sentence about what is skipped and why; empty if nothing is."""
        return self._described(self.passed_over)

    def missing(self, cases: Iterable[str]) -> list[str]:
        """Which of the given cases have no file, sorted."""
        return sorted(set(cases) - set(self.files))

    def missing_error(self, text: str) -> InputError:
        """The error for cases without a file; it also names skipped files that may be theirs."""
        return InputError(f"{text} {self._described(self.lost)}".rstrip())

    def require_cases(self, remedy: str) -> None:
        """Raise an InputError if there are no cases."""
        if not self.files:
            none = f"{self.folder} holds no file that ends with {self.file_ending}; {remedy}"
            raise InputError(f"{none} {self.note}".rstrip())

    def refuse_lost(self) -> None:
        """Raise an InputError if a case would be lost."""
        if self.lost:
            raise InputError(f"{self._described(self.lost)} Rename, convert or repair them, or move them elsewhere.")

    def _described(self, passed_over: dict[str, str]) -> str:
        if not passed_over:
            return ""
        named = list_some([f"{name} ({why})" for name, why in passed_over.items()])
        return (
            f"{self.folder} holds entries that look like images and are skipped, since cases are files that end "
            f"with {self.file_ending}: {named}."
        )


def image_ending(name: str) -> str | None:
    """The part of a name that is a file ending of nnU-Net's readers, in the name's own upper or lower case; or None.

    >>> image_ending("ms_1.NII.GZ"), image_ending("ms_1.txt")
    ('.NII.GZ', None)
    """
    # The longest match, in case one ending ends with another.
    found = max((ending for ending in ENDINGS if name.lower().endswith(ending)), key=len, default="")
    return name[-len(found) :] if found else None


def channels_of_cases(folder: Path, file_ending: str) -> dict[str, dict[int, Path]]:
    """The images ``<case>_0000<file_ending>`` and further channels in a folder, by case and channel, sorted by name.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as name:
    ...     for file in ("a_0000.nii.gz", "a_0002.nii.gz", "a_b_0000.nii.gz"):
    ...         (Path(name) / file).touch()
    ...     [(case, list(files)) for case, files in channels_of_cases(Path(name), ".nii.gz").items()]
    [('a', [0, 2]), ('a_b', [0])]
    """
    pattern = re.compile(r"(.+)_(\d{4})" + re.escape(file_ending))
    images: dict[str, dict[int, Path]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if named := pattern.fullmatch(file.name):
            images.setdefault(named[1], {})[int(named[2])] = file
    return images


def endings_of(*folders: Path) -> list[str]:
    """The image endings found in every one of the folders, in lower case, sorted."""
    found = [{image_ending(entry.name) for entry in _visible(folder)} for folder in folders]
    return sorted(set.intersection(*({ending.lower() for ending in endings if ending} for endings in found)))


def refuse_macos_files(images: Iterable[Path]) -> None:
    """Raise an InputError if nnU-Net would take metadata files of macOS for images."""
    found = [image for image in images if image.name.startswith("._")]
    if found:
        names = list_some([image.name for image in found])
        raise InputError(
            f"{found[0].parent} holds metadata files of macOS ({names}), which nnU-Net takes for images. "
            f"Delete them: find {found[0].parent} -name '._*' -delete"
        )


def first_file(folders: Iterable[Path], name: str) -> Path | None:
    """The file with this name in the first folder that has it."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def read_dataset_json(path: Path) -> dict:
    """Read the dataset.json of an nnU-Net dataset.

    Raises:
        InputError: it is not JSON, has another format or labels that are no dictionary, or names a file ending for
            which nnU-Net has no reader.
    """
    content = read_json(path)
    ending = content.get("file_ending") if isinstance(content, dict) else None
    if ending is None and isinstance(content, dict) and {"modality", "training"} & set(content):
        raise InputError(
            f"{path} has no 'file_ending': it has the format of nnU-Net v1 or of the Medical Segmentation Decathlon. "
            "Convert the dataset with nnUNetv2_convert_old_nnUNet_dataset or nnUNetv2_convert_MSD_dataset."
        )
    if not isinstance(ending, str):
        raise InputError(f"{path} has no 'file_ending'; it is not the dataset.json of an nnU-Net dataset.")
    if ending.lower() not in ENDINGS and "overwrite_image_reader_writer" not in content:
        raise InputError(f"{path}: nnU-Net has no reader for files that end with {ending}, only {', '.join(ENDINGS)}.")
    if "labels" in content and not isinstance(content["labels"], dict):
        raise InputError(
            f"{path} declares the labels {content['labels']!r}; nnU-Net maps names to numbers, as in "
            '"labels": {"background": 0, "lesion": 1}.'
        )
    return content


def find_reader(dataset_json: dict, examples: Iterable[Path]) -> type[BaseReaderWriter]:
    """The reader that nnU-Net chooses for a dataset.

    Args:
        dataset_json: names the file ending, and optionally the reader.
        examples: files of the dataset; the first readable one decides between several readers. nnU-Net takes the first
            image. Missing or broken files are reported later, when they are read.

    Raises:
        InputError: no reader of nnU-Net is for files with this ending, or the reader is given by something else than a
            name.

    >>> find_reader({"file_ending": ".nii.gz"}, []).__name__
    'SimpleITKIO'
    """
    named = dataset_json.get("overwrite_image_reader_writer", "None")
    if not isinstance(named, str):
        raise InputError(
            f"dataset.json or plans.json names the reader {named!r}; it must be a name of nnU-Net's, such as "
            '"SimpleITKIO".'
        )
    present = (file for file in examples if file.is_file() and file.stat().st_size and not file.name.startswith("._"))
    # nnU-Net prints a traceback for every reader that fails on the example.
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        for example in [*map(str, islice(present, MAX_EXAMPLES)), None]:
            with contextlib.suppress(RuntimeError):
                return determine_reader_writer_from_dataset_json(dataset_json, example, verbose=False)
    raise InputError(f"nnU-Net has no reader for files that end with {dataset_json['file_ending']}.")


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
