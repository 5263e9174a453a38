"""Scheduled kernels to machine code: measured in this process, or exported as a library."""

from lpgen.build.choice import Choice
from lpgen.build.library import build, check_output, header_path
from lpgen.build.scratch import scratch_folder

__all__ = ["Choice", "build", "check_output", "header_path", "scratch_folder"]
