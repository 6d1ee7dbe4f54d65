"""What the command lines share: one line and exit code 2 on bad input, options, any terminal."""

import argparse
import codecs
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PLAIN = {"±": "+-", "×": "x", "–": "-", "−": "-", "’": "'"}  # for terminals without the signs


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(PLAIN.get(sign, "?") for sign in text), error.end


codecs.register_error("spelled", _spell)


def device(name: str) -> "torch.device":
    """The type of an option: a device that computes here."""
    import torch

    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"'{name}' is no device here ({reason})") from error
    return torch.device(name)


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    """The option ``--device``, a GPU by default where there is one."""
    import torch

    usual = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=device, default=usual)


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
        print(f"error: {_origin(text, sys.argv[1:])}{text}", file=sys.stderr)
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
