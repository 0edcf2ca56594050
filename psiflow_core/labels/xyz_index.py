"""The positions of the frames in an extended XYZ file, found by counting lines, without parsing any frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from psiflow_core.errors import StructureError


def frame_offsets(file: Path) -> NDArray[np.int64]:
    """The beginning of each frame, and the end of the last one, shape (frames + 1,). [bytes of the uncompressed file]

    Raises:
        StructureError: a line with the number of atoms is blank. ASE would stop there and ignore all later frames.
        OSError: the file cannot be read.
    """
    from ase.io.formats import open_with_compression

    with open_with_compression(str(file), "rb") as lines:
        return np.array(list(_offsets(lines, file)), np.int64)


def _offsets(lines: IO[bytes], file: Path) -> Iterator[int]:
    offset, number, blank = 0, 0, 0
    for line in lines:
        number += 1
        if blank and line.strip():
            raise StructureError(
                f"{file.absolute()}: line {blank} is blank, and all frames after it would be ignored; remove the line"
            )
        if not line.strip():
            blank = blank or number
        elif not line.lstrip().startswith(b"VEC"):  # a cell, at the end of the frame before
            yield offset
            count = _atoms(line) + 1
            offset += _length(islice(lines, count))
            number += count
        offset += len(line)
    yield offset


def _length(lines: Iterable[bytes]) -> int:
    return sum(map(len, lines))


def _atoms(line: bytes) -> int:
    """The number of atoms of a frame; a line without a number is refused later, by the reader of the frame."""
    word = line.strip()
    return int(word) if word.isdigit() else 0
