"""Check bytes that correct one wrong bit in 8 bytes and notice two (SEC-DED, a Hamming code of 64
bits with a parity), as memories with ECC have them.

Bit j of a word has a number of 7 bits, of which two or more are set. Seven check bits are the
parities of the bits whose numbers have bit 0, 1, ... set, the eighth makes the number of ones in
all 72 even. One wrong bit makes that odd and leaves its number as the difference of the others; two
leave it even. (A Hamming code with a parity: any book on memories.)
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from lpgen.errors import LibraryError

_HEAD, _MAGIC = struct.Struct("<8sQ"), b"lpgen-e1"

WORD = 8
"""Bytes that share a check byte."""

_NUMBERS = np.array([n for n in range(3, 128) if n & (n - 1)][:64], np.uint8)
_MASKS = [
    int(sum(1 << j for j, number in enumerate(_NUMBERS.tolist()) if number >> bit & 1))
    for bit in range(7)
]
_PLACES = np.full(128, -1, np.int8)
"""The bit of a number: of the word, 64: of the check byte, -1: of none."""
_PLACES[_NUMBERS] = np.arange(64)
_PLACES[[1 << bit for bit in range(7)]] = 64


def checks(data: np.ndarray) -> np.ndarray:
    """The check bytes uint8[n / 8] of uint8[n]; what is missing of the last word counts as 0."""
    words = _words(data)
    found = np.zeros(words.size, np.uint8)
    for bit, mask in enumerate(_MASKS):
        found |= (np.bitwise_count(words & np.uint64(mask)) & 1) << np.uint8(bit)
    whole = np.bitwise_count(words) + np.bitwise_count(found)
    return found | ((whole & 1) << np.uint8(7))


def corrected(data: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, int, int]:
    """(the data with single wrong bits set right, how many words had one, how many have more);
    known: the check bytes that were made of the right data, which may be wrong themselves."""
    words, found = _words(data).copy(), checks(data)
    differs = found ^ known
    # The eighth bit of `found` is even over what is there now: so is the parity of the errors.
    odd = (np.bitwise_count(differs) & 1).astype(bool)
    number = differs & 0x7F
    place = _PLACES[number]
    place = np.where(odd & (number == 0), 64, place)  # the eighth itself
    hit = odd & (place >= 0) & (place < 64)
    words[hit] ^= np.uint64(1) << place[hit].astype(np.uint64)
    lost = (differs != 0) & (~odd | (place < 0))
    right = words.view(np.uint8)[: data.size]
    return right, int((odd & ~lost).sum()), int(lost.sum())


def corrected_file(path: Path, checks_path: Path) -> tuple[np.ndarray, int]:
    """(the bytes of a file, set right by a file of check bytes (`lpgen.network.protection`), how
    many words had a wrong bit). Raises LibraryError for a file that cannot be read, check bytes of
    another one, and words with more wrong bits."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8).copy()
        stored = checks_path.read_bytes()
    except OSError as error:
        raise LibraryError(f"{error.filename}: {error.strerror}") from None
    spans, known = _spans(stored)
    ends = [first + count for first, count in spans]
    if not spans or max(ends) > data.size or known.size != sum(-(-c // WORD) for _, c in spans):
        raise LibraryError(f"{checks_path}: is damaged, or holds no check bytes of {path.name}")
    at = total = 0
    for first, count in spans:
        size = -(-count // WORD)
        right, single, lost = corrected(data[first : first + count], known[at : at + size])
        if lost:
            raise LibraryError(f"{path}: {lost} words of 8 bytes have more than one wrong bit")
        data[first : first + count], at, total = right, at + size, total + single
    return data, total


def _spans(stored: bytes) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The spans of a file of check bytes, and these; none where it is no such file."""
    if len(stored) < _HEAD.size or stored[:8] != _MAGIC:
        return [], np.zeros(0, np.uint8)
    count = _HEAD.unpack_from(stored)[1]
    start = _HEAD.size + 16 * count
    if start > len(stored):
        return [], np.zeros(0, np.uint8)
    spans = np.frombuffer(stored, "<u8", 2 * count, _HEAD.size).reshape(-1, 2).tolist()
    return [tuple(span) for span in spans], np.frombuffer(stored, np.uint8, offset=start)


def _words(data: np.ndarray) -> np.ndarray:
    full = np.zeros(-(-data.size // WORD) * WORD, np.uint8)
    full[: data.size] = data
    return full.view(np.uint64)
