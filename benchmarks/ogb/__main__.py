"""python -m benchmarks.ogb"""

from benchmarks import flags, ogb
from benchmarks.common import command_line

if __name__ == "__main__":  # a typo waits for no import
    flags.ogb(ogb.__doc__).parse_args()
    from benchmarks.ogb.command import main

    command_line(main)
