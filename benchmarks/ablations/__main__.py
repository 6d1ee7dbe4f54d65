"""python -m benchmarks.ablations"""

from benchmarks import ablations, flags
from benchmarks.common import command_line

if __name__ == "__main__":  # a typo waits for no import
    flags.ablations(ablations.__doc__).parse_args()
    from benchmarks.ablations.command import main

    command_line(main)
