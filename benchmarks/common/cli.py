"""What the command lines share: one line and exit code 2 on bad input, options, any terminal.

Nothing heavy is imported here: a command checks its flags first, so that ``--help`` and a typo wait
for nothing. Flags of commands that need torch stand in ``benchmarks/flags.py`` and
``fewshot/flags.py``; such a command begins with ::

    if __name__ == "__main__":  # before the imports that take seconds
        flags.tune(__doc__).parse_args()
"""

import argparse
import codecs
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import torch

PLAIN = {"±": "+-", "×": "x", "–": "-", "−": "-", "’": "'"}  # for terminals without the signs


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(PLAIN.get(sign, "?") for sign in text), error.end


codecs.register_error("spelled", _spell)


def command_name() -> str:
    """How the command that runs was called, as its errors and its usage name it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return Path(sys.argv[0]).name
    return f"python -m {spec.name.removesuffix('.__main__')}"


class Parser(argparse.ArgumentParser):
    """The flags of a command: an error is one line, the help tells every default.

    Args:
        text (str): The module's docstring; its first lines are the help's.

    Example:
        >>> p = Parser("Add numbers.")
        >>> _ = p.add_argument("--by", type=int, default=3, help="how much")
        >>> "how much (default: 3)" in p.format_help()
        True
    """

    def __init__(self, text: str | None) -> None:
        super().__init__(
            prog=command_name(),
            description=text,
            usage=argparse.SUPPRESS,
            formatter_class=argparse.RawTextHelpFormatter,
        )

    def format_help(self) -> str:
        for action in self._actions:
            known, told = action.default, action.help or ""
            if known in (None, False, argparse.SUPPRESS) or "default" in told:
                continue
            shown = " ".join(map(str, known)) if isinstance(known, (list, tuple)) else str(known)
            action.help = f"{told} (default: {shown.replace('%', '%%')})".strip()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        typo = re.match(r"unrecognized arguments: (--\w+)", message)
        near = difflib.get_close_matches(typo[1], self._option_string_actions, 1) if typo else []
        hint = f"did you mean {near[0]}?" if near else "--help lists the options"
        self.exit(2, f"{self.prog}: error: {message} ({hint})\n")


def path(text: str) -> Path:
    """A path that is given; an empty one would mean the working folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a path (got {text!r})")
    return Path(text)


def device(name: str | None) -> "torch.device":
    """A device that computes here; by default a GPU, where torch finds one.

    Raises:
        ValueError: If it does not compute; names it.
    """
    import torch

    name = ("cuda" if torch.cuda.is_available() else "cpu") if name is None else name
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"'--device' '{name}' is no device here ({reason})") from error
    return torch.device(name)


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    """The option ``--device``, of which :func:`device` makes one when the flags are right."""
    parser.add_argument("--device", help="(default: cuda where torch finds a GPU, else cpu)")


def refuse_unused(
    parser: argparse.ArgumentParser, args: argparse.Namespace, names: Iterable[str], mode: str
) -> None:
    """Refuse options that are given although they do nothing in a mode.

    Raises:
        ValueError: Names the option and the mode.
    """
    for name in names:
        if getattr(args, name) != parser.get_default(name):
            raise ValueError(f"'--{name}' has no effect with {mode}; leave it out")


def command_line(main: Callable[[], None]) -> None:
    """Run ``main`` and turn errors that a user can mend into one line on stderr and exit code 2.

    Errors of the input (``ValueError``, ``TypeError``) and of the system (``OSError``, which
    includes a missing file, a missing permission and a full disk) are printed without a traceback,
    and so is a missing optional package (``ImportError``). The option that gave a path is named.
    Signs that the terminal lacks are spelled out. Ctrl-C exits with 130.

    Example:
        >>> command_line(lambda: print("done"))
        done
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="spelled")
    try:
        main()
    except (ValueError, TypeError, OSError, ImportError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        line = f"{command_name()}: error: {_origin(text, sys.argv[1:])}{text}"
        print(line, file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _origin(text: str, argv: list[str]) -> str:
    """The option whose path is quoted by an error that names no option."""
    if re.search("--[a-z]", text):
        return ""
    quoted = [f"{path}/" for path in re.findall("'([^']+)'", text)]
    given = [
        (option, value, f"{form}/")
        for option, value in _options(argv)
        for form in (value.rstrip("/"), os.path.normpath(value))
    ]
    within = [each for each in given if any(path.startswith(each[2]) for path in quoted)]
    around = [each for each in given if any(each[2].startswith(path) for path in quoted)]
    return "".join(f"{option} {value}: " for option, value, _ in (within + around)[:1])


def _options(argv: list[str]) -> Iterator[tuple[str, str]]:
    """Options and each of their values."""
    option = None
    for word in argv:
        if word.startswith("--"):
            option, _, value = word.partition("=")
            if value:
                yield option, value
        elif option:
            yield option, word
