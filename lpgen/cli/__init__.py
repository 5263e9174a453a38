"""The command line, `lpgen COMMAND`: reads arguments, calls the rooms below, prints.

Each command is a module here. The modules import only click and each other at their top, because
`lpgen --help` reads all of them and has to be quick.
"""

import contextlib
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (default: that of the process) and exit."""
    try:
        from lpgen.cli import app

        app.main(arguments)
    except KeyboardInterrupt:  # while it was imported, or once more while it was ending
        print("lpgen: interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        # CPython ends by SIGINT, whatever the status, if Ctrl-C met the text of an `exec` (as when
        # a dataclass is made); it forgets that when the next text runs.
        with contextlib.suppress(MemoryError):  # there may be none left
            exec("")
