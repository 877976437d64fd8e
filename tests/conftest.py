"""The devices that networks run on, and a disk that is full in the middle of a file."""

import os
import subprocess
from contextlib import contextmanager
from types import SimpleNamespace

import hypothesis
import pytest
import torch
from scenes import balls, perfect_heads, positions_mm, same_partition

PAGE = 4096
# On a busy machine any example may take long.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_collection_modifyitems(items):
    """The contract with nnU-Net comes first: where it is broken, all else fails for that reason."""
    items.sort(key=lambda item: item.path.name != "test_contract.py")


class FullDisk:
    """A small file system of its own; needs root."""

    def __init__(self, mount):
        self.mount, self.folder = mount, mount / "folder"
        self.folder.mkdir()

    @contextmanager
    def room(self, n_bytes):
        """While open, so many bytes are left, in whole pages."""
        filler = self.mount / "filler"
        with open(filler, "wb") as file:
            free = os.statvfs(self.mount).f_bavail * PAGE
            os.posix_fallocate(file.fileno(), 0, free - n_bytes // PAGE * PAGE)
        try:
            yield
        finally:
            filler.unlink()


class FileSizeLimit:
    """Writes of this process that the system refuses as on a full disk, for everyone else."""

    def __init__(self, folder):
        self.folder = folder
        self.folder.mkdir()

    @contextmanager
    def room(self, n_bytes):
        """While open, no file grows beyond so many bytes."""
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(params=["full disk", "limited file size"])
def disk(request, tmp_path):
    """A folder, ``disk.folder``, and a context ``disk.room(n)`` in which writing there fails after some bytes."""
    place = tmp_path / "disk"
    if request.param == "limited file size":
        pytest.importorskip("resource")
        yield FileSizeLimit(place)
        return
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place]
    if not hasattr(os, "posix_fallocate") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield FullDisk(place)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


WITHOUT_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=WITHOUT_CUDA)])
def device(request):
    """Each device on which networks are trained and predict."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def toys():
    """Scenes whose right answer is known."""
    return SimpleNamespace(
        positions_mm=positions_mm, perfect_heads=perfect_heads, balls=balls, same_partition=same_partition
    )
