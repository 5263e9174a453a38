"""Building a library: one .so with kernels, weight packers and manifest, and its header."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lpgen.build import compiler, source
from lpgen.build.choice import (
    Choice,
    Exported,
    Variant,
    exported,
    identity,
    pack_symbol,
    run_symbols,
    variant_symbol,
)
from lpgen.build.manifest import manifest
from lpgen.build.objects import Objects
from lpgen.build.part import Builder, Part
from lpgen.build.scratch import scratch_folder
from lpgen.build.support import compile_flags, run_compiler, support_objects
from lpgen.build.toolchain import compiler_of
from lpgen.errors import LibraryError
from lpgen.runtime.files import HASH_BYTES, find_hash, hash_of

if TYPE_CHECKING:
    from lpgen.build.stack import Scratch
    from lpgen.target import Target

# Everything else is internal, so that two libraries in one program do not meet.
_EXPORTS = ("lpgen_*", "__tvm_ffi_*")

# Debug lines that TVM emits are dropped; an undefined symbol is found now and not at load time.
# Its own functions are called here, also where another library of a program has the same. Data it
# exports none, and zig has no -Bsymbolic-functions.
_LINK_FLAGS = (
    *("-Wl,--strip-debug", "-Wl,-z,defs", "-Wl,-z,noexecstack"),
    "-Wl,-Bsymbolic",
)
# Room for the hash of the contents, which `_seal` puts there.
_HASH_FLAG = f"-Wl,--build-id=0x{bytes(HASH_BYTES).hex()}"


def build(
    choices: Iterable[Choice],
    out: str | os.PathLike[str],
    part: Builder | None = None,
    on_kernel: Callable[[int], None] = lambda done: None,
    objects: Objects | None = None,
) -> Path:
    """Write a library with a kernel for every choice to `out`, and its header beside it (.h).

    They are compiled as they come; the order of several choices for one workload is that in which
    the runtime prefers them.
    part: makes what the library holds beside kernels; on_kernel: is told how many are compiled;
    objects: where those of other libraries are, and those of this one stay [nowhere].
    Both files appear complete or not at all. Returns the path of the library.
    Kernels are compiled in a process of their own, which a crash of LLVM ends.
    Raises LibraryError when nothing or the same twice is chosen, when `out` cannot be written, or
    when there is no C compiler, and when the disk is full; CompileError, or TooLarge, naming the
    kernel that TVM or LLVM does not compile.
    """
    out = check_output(out)
    choices = iter(choices)
    first = next(choices, None)
    linker = compiler_of(first.target) if first else []
    try:
        with scratch_folder() as folder:
            every = itertools.chain([first] if first else [], choices)
            kept = objects or Objects(folder)
            variants, files = _compile(_checked(every), kept, on_kernel)
            kernels = exported(variants)
            more = part(kernels) if part else Part("", "", {}, ())
            _write_sources(kernels, more, folder)
            text = source.header(kernels, out.name, more.header)
            (folder / "header").write_text(text, encoding="utf-8")
            _link(linker, _cpu_file(variants[0].choice.target), files, folder)
            _seal(folder / "library")
            for suffix, write in more.beside.items():
                write(folder / f"beside{suffix}")
            _publish(folder, out, more.beside)
    except OSError as error:
        where = error.filename2 or error.filename or tempfile.gettempdir()
        raise LibraryError(f"{out} cannot be built: {error.strerror} ({where})") from None
    return out


def header_path(library: str | os.PathLike[str]) -> Path:
    """Where the header of a library is written: the same name, ending in .h."""
    return Path(library).with_suffix(".h")


def check_output(out: str | os.PathLike[str]) -> Path:
    """The absolute path of a library to be written; nothing is written yet.

    Raises LibraryError when `out` is a folder, names no .so, lies where no file can be created, or
    has a name that is not UTF-8.
    """
    path = Path(out).absolute()
    try:
        if path.is_dir() or header_path(path).is_dir():
            raise LibraryError(f"output {out} is a folder; give the path of a file, such as lib.so")
        if path.suffix != ".so":
            raise LibraryError(f"output {out} does not end in .so")
        path.name.encode()
        with scratch_folder(path.parent):
            return path
    except OSError as error:
        raise LibraryError(f"output {out} cannot be written: {error.strerror}") from None
    except UnicodeEncodeError:
        raise LibraryError(f"output {str(out)!r} is not UTF-8, and its header names it") from None


def _checked(choices: Iterable[Choice]) -> Iterator[Choice]:
    """The choices; LibraryError for one that was there before, and where there is none."""
    seen: set[tuple[str, str]] = set()
    known: dict[str, Target] = {}
    for choice in choices:
        op, target = choice.op, choice.target
        if (op.name, target.name) in seen:
            raise LibraryError(f"{op.name}: twice for target {target.name}")
        if known.setdefault(target.name, target).features != target.features:
            raise LibraryError(f"{op.name}: another target {target.name} than that of others")
        seen.add((op.name, target.name))
        yield choice
    if not seen:
        raise LibraryError("a library needs at least one kernel")


def _compile(
    choices: Iterable[Choice], objects: Objects, on_kernel: Callable[[int], None]
) -> tuple[list[Variant], list[Path]]:
    """An object file for each choice, with its kernel and its packer."""
    variants, files = [], []
    for choice in choices:
        symbol, packer = variant_symbol(choice), choice.kernel.packer
        runs, pack = run_symbols(choice), pack_symbol(symbol)
        functions = dict(zip(runs, choice.kernel.functions, strict=True))
        functions |= {pack: packer} if packer else {}
        what = f"{choice.op.name}: {choice.template} for {choice.target.name}"
        compiled = partial(compiler.compile_apart, what, functions, choice.target)
        file, done = objects.of(choice, compiled)
        files.append(file)
        number = identity(choice, packer.module if packer else None)
        scratch = _enough([done.scratch[run] for run in runs]), done.scratch.get(pack)
        variants.append(Variant(choice, number, *scratch, max(done.pieces[run] for run in runs)))
        on_kernel(len(variants))
    return variants, files


def _enough(scratches: Sequence[Scratch]) -> Scratch:
    """Scratch memory for any one of several functions."""
    serial, per_thread = (max(sizes) for sizes in zip(*map(astuple, scratches), strict=True))
    return replace(scratches[0], serial=serial, per_thread=per_thread)


def _cpu_file(target: Target) -> str:
    """The C file that asks a CPU of the target's architecture what it has."""
    return f"cpu_{target.architecture}.c"


def _write_sources(kernels: Sequence[Exported], part: Part, folder: Path) -> None:
    text = source.c_source(kernels, manifest(kernels) | part.manifest, part.source)
    (folder / "kernels.c").write_text(text, encoding="utf-8")
    public = "".join(f"{name}; " for name in (*_EXPORTS, *part.exports))
    (folder / "exports").write_text(f"{{ global: {public}local: *; }};", encoding="utf-8")
    for name, write in part.files.items():
        write(folder / name)


def _link(compiler: list[str], cpu_file: str, objects: Sequence[Path], folder: Path) -> None:
    support = support_objects(compiler, cpu_file, folder)
    command = [
        *(*compiler, *compile_flags(), "-shared", *support, "kernels.c", *map(str, objects)),
        *(*_LINK_FLAGS, _HASH_FLAG, "-Wl,--version-script=exports", "-o", "library"),
    ]
    run_compiler(command, folder)


def _seal(library: Path) -> None:
    """Write the hash of the contents into the library; the runtime compares it."""
    data = bytearray(library.read_bytes())
    place = find_hash(data)
    if place is None or any(data[place : place + HASH_BYTES]):
        raise LibraryError("the linker of the C compiler does not write the build id it is given")
    data[place : place + HASH_BYTES] = hash_of(data, place)
    library.write_bytes(data)


def _publish(folder: Path, out: Path, suffixes: Iterable[str]) -> None:
    """The library, the header and what lies beside them at their places at once."""
    places = {f"beside{suffix}": out.with_suffix(suffix) for suffix in suffixes}
    places |= {"library": out, "header": header_path(out)}
    with scratch_folder(out.parent) as ready:
        for name in places:
            shutil.copy(folder / name, ready / name)
        for name, place in places.items():
            os.replace(ready / name, place)
