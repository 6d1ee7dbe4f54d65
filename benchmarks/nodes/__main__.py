"""python -m benchmarks.nodes"""

from benchmarks import flags, nodes
from benchmarks.common import command_line

if __name__ == "__main__":  # a typo waits for no import
    flags.nodes(nodes.__doc__).parse_args()
    from benchmarks.nodes.command import main

    command_line(main)
