"""`python -m recbole_mars.serving COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from recbole_mars.serving.commands import COMMANDS

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a sub-command; what is wrong with its input ends it with status 2 and one line."""
    parser = argparse.ArgumentParser("python -m recbole_mars.serving")
    named = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = {name: import_module(f"recbole_mars.serving.commands.{name}") for name in COMMANDS}
    for name, module in modules.items():
        about = str(module.__doc__).splitlines()[0]
        module.add_arguments(named.add_parser(name, help=about, description=about))
    args = parser.parse_args(arguments)
    try:
        modules[args.command].run(args)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"{parser.prog} {args.command}: {error}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
