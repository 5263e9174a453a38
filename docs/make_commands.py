"""Writes docs/commands.md: what every command says with --help.

python docs/make_commands.py
"""

from pathlib import Path

import click

from lpgen.cli.app import cli

PAGE = Path(__file__).with_name("commands.md")
WIDTH = 96
INTRO = """# Commands

Made by `python docs/make_commands.py` from what each command says with `--help`.

* A WORKLOAD is one quoted line; `@FILE` is a regular file of such lines, with `#` comments, as
  `lpgen suites NAME` prints them. Words with a default (`n`, `stride`, `pad`, `dilation`,
  `groups`, `out`) may be left out, and their order is free. `kernel`, `stride`, `dilation` and
  `pad` take one number or `HxW`; `pad` also top, left, bottom, right (`0x1x0x1`).
* `--bits wXaY` gives a suite the formats `act=uY weight=sX` (`b1` for one-bit weights); `--act`
  and `--weight` name any others. `--epilogue "out=u8 scale=channel"` gives its operators an
  epilogue.
* `--target` is `native` or a name of `lpgen targets`. Building works for every one of them;
  tuning, checking and timing need a CPU that has its instructions.
* Records go to `--log FILE`, by default to `$XDG_DATA_HOME/lpgen/TARGET.jsonl`
  (`~/.local/share/lpgen/`). `build` reads that log first, then the ones that come with lpgen, and
  says whose record each kernel has: this target's, that of a lesser CPU ("record of avx512vnni"),
  or none, so that a cost model chose it ([choice](choice.md)); and which get the generic kernel.
* A mistake is one line that names the value and the limit, and exit status 2. `check` exits with
  1 when a kernel is wrong. After Ctrl-C (status 130), TERM (143) or HUP (129) nothing is left
  behind, and the same `tune` goes on with what is in the log.
"""


def page() -> str:
    """The page as it should be."""
    parts = [INTRO]
    lpgen = click.Context(cli, **cli.context_settings)
    for name in cli.list_commands(None):
        command = cli.get_command(None, name)
        context = click.Context(
            command,
            lpgen,
            info_name=name,
            terminal_width=WIDTH,
            max_content_width=WIDTH,
        )
        parts.append(f"## lpgen {name}\n\n```\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
