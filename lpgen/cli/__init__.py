"""The command line, `lpgen COMMAND`: reads arguments, calls the rooms below, prints.

Each command is a module here. The modules import only click and each other at their top, because
`lpgen --help` reads all of them and has to be quick.
"""

from lpgen.cli.app import main

__all__ = ["main"]
