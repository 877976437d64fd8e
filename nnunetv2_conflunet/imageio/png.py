"""Faults of PNG files that readers overlook: they do not compare the checksums of the chunks that hold the pixels."""

import zlib
from pathlib import Path

from nnunetv2_conflunet.imageio.stored import damaged

ENDING = ".png"
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def check_png(path: Path) -> None:
    """Compare every chunk with its checksum; costs the reading of the compressed file.

    Raises:
        InputError: a checksum differs, or the file ends before its last chunk.
    """
    content = path.read_bytes()
    if not content.startswith(SIGNATURE):
        # Another format under this name, which the reader accepts or refuses.
        return
    position, kind = len(SIGNATURE), b""
    while kind != b"IEND" and position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        body, stored = content[position + 4 : position + 8 + length], content[position + 8 + length :][:4]
        kind = body[:4]
        if zlib.crc32(body) != int.from_bytes(stored, "big") or len(stored) < 4:
            raise damaged(path, f"chunk {kind!r} is not whole")
        position += 12 + length
