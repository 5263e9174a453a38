"""The group of commands, and how each way to end becomes a message and an exit status."""

import contextlib
import difflib
import resource
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TextIO

import click

from lpgen.cli import output, streams
from lpgen.cli.ending import Ending
from lpgen.errors import LpgenError, UserError
from lpgen.supervise import end_children

USER_MISTAKE = 2

_OUT_OF_MEMORY = ("bad_alloc", "annot allocate memory", "failed to map segment", "out of memory")

# Command -> its module in lpgen.cli, whose `command` it is.
_COMMANDS = {
    "targets": "targets",
    "suites": "suites",
    "tune": "tune",
    "build": "build",
    "compile": "compile",
    "check": "check",
    "bench": "bench",
    "show": "show",
    "import": "import_model",
    "sensitivity": "sensitivity",
    "plan": "plan",
    "quantize": "quantize",
    "export-schedule": "export_schedule",
    "devices": "devices",
    "rpc-tracker": "rpc_tracker",
    "rpc-server": "rpc_server",
    "fit-cost": "fit_cost",
    "quickstart": "quickstart",
}


class _Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        if name not in _COMMANDS:
            near = difflib.get_close_matches(name, _COMMANDS, n=2)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            ctx.fail(f"command {name!r} is unknown; {hint}known: {', '.join(_COMMANDS)}")
        return import_module(f"lpgen.cli.{_COMMANDS[name]}").command


class Interrupted(Exception):
    """Ctrl-C, TERM or HUP, with a line on how to go on."""


@contextlib.contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Ctrl-C, TERM and HUP inside of the block end the program with this message."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(message) from None


def _print_version(ctx: click.Context, option: click.Option, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"lpgen {version('lpgen')} (TVM {version('apache-tvm')})")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of lpgen and TVM.",
)
def cli() -> None:
    """Generate, tune and export low-precision CPU kernels.

    A WORKLOAD is one quoted line, such as "dense m=64 n=256 k=512 act=u8 weight=s4" or
    "conv2d h=56 w=56 ic=64 oc=64 kernel=3x3 pad=1 act=u8 weight=s8", or @FILE, a file of such
    lines.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (default: that of the process) and exit."""
    streams.prepare()
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status. What a user did wrong is one line on stderr."""
    warnings.showwarning = _show_warning
    with Ending() as ending:
        return _run(arguments, ending)


def _run(arguments: Sequence[str] | None, ending: Ending) -> int:
    try:
        status = cli.main(arguments, prog_name="lpgen", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USER_MISTAKE
    except click.ClickException as error:
        return _fail(error.format_message())
    except UserError as error:
        return _fail(str(error))
    except Interrupted as error:
        end_children()
        return _fail(str(error), ending.status)
    except (KeyboardInterrupt, click.Abort):
        end_children()
        return _fail(ending.message, ending.status)
    except BrokenPipeError:
        streams.give_up_stdout()  # the reader has enough: `lpgen show log | head`
        return 1
    except Exception as error:
        reason = _of_the_system(error)
        if reason is None:
            raise  # a fault of lpgen
        streams.give_up_stdout()
        if reason.startswith("out of memory"):
            # What TVM does when Python ends fails too: one line says enough.
            sys.unraisablehook = lambda failure: None
        return _fail(reason)
    return status if isinstance(status, int) else 0


def _of_the_system(error: Exception) -> str | None:
    """One line for what the system did not give: a file, memory, a module. None for other errors.

    A module that cannot be loaded for want of memory fails in many ways, so the limit is named.
    """
    limit, told = resource.getrlimit(resource.RLIMIT_AS)[0], ""
    if limit != resource.RLIM_INFINITY:
        told = f"; the address space may be too small: `ulimit -v` is {limit // 1024} KiB"
    reason = " ".join(str(error).split()) or type(error).__name__
    # An extension module that gets no memory while it is loaded may not even say so (SystemError).
    short = isinstance(error, MemoryError) or (told and isinstance(error, SystemError))
    if short or any(words in reason for words in _OUT_OF_MEMORY):
        return f"out of memory: {reason[:200]}{told}"
    if isinstance(error, ImportError):
        return f"{error.name or 'a module'} cannot be imported: {reason}{told}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'output'}: {error.strerror}"
    return None


def _fail(message: str, status: int = USER_MISTAKE) -> int:
    output.note(f"lpgen: {' '.join(message.split())}")
    return status


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """lpgen's own warnings in one line each, others as Python shows them."""
    if category.__module__.partition(".")[0] == LpgenError.__module__.partition(".")[0]:
        output.note(f"lpgen: warning: {message}")
    else:
        output.note(warnings.formatwarning(message, category, filename, lineno, line))
