"""Standard streams of the command line: closed ones, full ones, and texts they cannot say."""

from __future__ import annotations

import os
import sys


def prepare() -> None:
    """Make the standard streams of this process ones that can be written to.

    A closed one (`lpgen ... >&-`) becomes the null device: its number would go to the next file
    that is opened, and a child would write into that. A text with no code in the stream's encoding,
    such as a path that is not UTF-8, is written with backslashes.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr.reconfigure(errors="backslashreplace")


def give_up_stdout() -> None:
    """Drop what could not be printed: Python would try once more, and complain, while it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
