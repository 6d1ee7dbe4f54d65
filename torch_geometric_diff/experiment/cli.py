"""How every command line of the project ends: one line and exit code 2 on bad input."""

import sys
from collections.abc import Callable


def command_line(main: Callable[[], None]) -> None:
    """Run ``main`` and turn errors that a user can mend into one line on stderr and exit code 2.

    Errors of the input (``ValueError``, ``TypeError``) and of the system (``OSError``, which
    includes a missing file, a missing permission and a full disk) are printed without a traceback,
    and so is a missing optional package (``ImportError``). Ctrl-C exits with 130.

    Example:
        >>> command_line(lambda: print("done"))
        done
    """
    try:
        main()
    except (ValueError, TypeError, OSError, ImportError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {text}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
