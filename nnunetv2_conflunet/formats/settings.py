"""Settings of the export."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.options import option

FORMATS = ("itksnap", "slicer", "bids", "dicomseg")
# Which settings belong to one format only.
OF_FORMAT = {"names": "bids", "pattern": "bids", "series": "dicomseg"}

# By format: the package as it is imported, as it is installed, and the extra that brings it.
EXTRAS = {"slicer": ("nrrd", "pynrrd", "slicer"), "dicomseg": ("highdicom", "highdicom", "dicom")}


@dataclass(frozen=True)
class ExportSettings:
    """What is written, and what it needs.

    Raises:
        InputError: the format is unknown, or a setting belongs to another one.

    >>> ExportSettings("bids", pattern="MS_(?P<subject>.+)").format
    'bids'
    """

    format: str = option("itksnap", "what to write", choices=FORMATS)
    names: Path | None = option(
        None, "bids: CSV or TSV table with the columns case, subject and, optionally, session", metavar="TABLE"
    )
    pattern: str | None = option(
        None,
        "bids: regular expression for the whole name of a case, with the groups (?P<subject>...) and, optionally, "
        "(?P<session>...)",
        metavar="REGEX",
    )
    series: Path | None = option(
        None,
        "dicomseg: folder that holds the DICOM series of each case in a folder named after the case, or a CSV or TSV "
        "table with the columns case and series",
        metavar="PATH",
    )

    def __post_init__(self):
        if self.format not in FORMATS:
            raise InputError(f"There is no format '{self.format}', only {', '.join(FORMATS)}.")
        for name, belongs_to in OF_FORMAT.items():
            if getattr(self, name) is not None and self.format != belongs_to:
                raise InputError(f"--{name} belongs to --format {belongs_to}, not to {self.format}; leave it out.")
        if self.names is not None and self.pattern is not None:
            raise InputError("--names and --pattern both name the subjects; give one of them.")
        if self.format == "dicomseg" and self.series is None:
            raise InputError("--format dicomseg needs the images that were segmented; name them with --series.")


def require_extra(name: str) -> None:
    """Raise an InputError if the package that a format needs is not installed; it names package and extra.

    >>> require_extra("itksnap")
    """
    if name not in EXTRAS:
        return
    module, package, extra = EXTRAS[name]
    try:
        import_module(module)
    except ImportError as error:
        raise InputError(
            f"--format {name} needs the package {package} ({error}); install it with `pip install {package}`, or "
            f"install this package with its extra [{extra}]."
        ) from error
