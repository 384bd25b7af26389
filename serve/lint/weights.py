"""A safetensors file, read a piece at a time: bfloat16 and float8 too, which NumPy does not have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

PIECE = 1 << 22
"""Bytes that are in memory at once."""

FLOATS = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000, 1 << 63),
    "F32": (np.uint32, 0x7F80_0000, 1 << 31),
    "F16": (np.uint16, 0x7C00, 1 << 15),
    "BF16": (np.uint16, 0x7F80, 1 << 15),
    "F8_E5M2": (np.uint8, 0x7C, 1 << 7),
    "F8_E4M3": (np.uint8, 0x7F, 1 << 7),
}
"""Each type's bits as whole numbers, the bits that are all set in what is not finite, and the sign."""


class WeightsError(Exception):
    """A file that cannot be read, in one line."""


@dataclass(frozen=True)
class Tensor:
    """One entry of the header; `begin` and `end` are places in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


def header(file: Path) -> tuple[Tensor, ...]:
    """A file's tensors, none of them read. Raises WeightsError."""
    try:
        with safe_open(file, framework="numpy"):  # checks all that a header has to keep to
            pass
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            entries = json.loads(opened.read(size))
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(f"{file} cannot be read: {error}") from None
    return tuple(
        Tensor(
            name,
            entry["dtype"],
            tuple(entry["shape"]),
            8 + size + entry["data_offsets"][0],
            8 + size + entry["data_offsets"][1],
        )
        for name, entry in entries.items()
        if name != "__metadata__"
    )


def look(file: Path, tensor: Tensor) -> tuple[bool, bool]:
    """Whether all its values are finite, and whether all are zero. Raises WeightsError."""
    if tensor.dtype not in FLOATS:
        raise WeightsError(f"{tensor.name} holds {tensor.dtype}, which is no float of 8 bits or more")
    kind, exponent, sign = FLOATS[tensor.dtype]
    zero = True
    try:
        with file.open("rb") as opened:
            opened.seek(tensor.begin)
            left = tensor.end - tensor.begin
            while left > 0:
                piece = opened.read(min(PIECE, left))
                if not piece:
                    raise WeightsError(f"{file} ends within {tensor.name}")
                left -= len(piece)
                bits = np.frombuffer(piece, kind)
                if ((bits & kind(exponent)) == kind(exponent)).any():
                    return False, False
                zero = zero and not (bits & kind(sign - 1)).any()
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error}") from None
    return True, zero
