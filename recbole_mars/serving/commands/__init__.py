"""Sub-commands of `python -m recbole_mars.serving`, one a module.

Each has a docstring, whose first line is its help, add_arguments(parser) and run(args).
"""

__all__ = ["COMMANDS"]

COMMANDS = ("offline", "serve", "train", "enqueue", "choose")
