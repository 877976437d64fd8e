"""Packages that only some formats need."""

from importlib import import_module

from nnunetv2_conflunet.utilities.errors import InputError

# By format: the package as it is imported, as it is installed, and the extra that brings it.
EXTRAS = {"slicer": ("nrrd", "pynrrd", "slicer"), "dicomseg": ("highdicom", "highdicom", "dicom")}


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
