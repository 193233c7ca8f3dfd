"""The main job's MARS in service: real requests, their answers explained, and a page to look at.

Takes the model that the main job left in --run, brings its users into a store, publishes a
snapshot, and serves it with the page, to this machine only. Where there is no model, the main job
with tiny settings is run first.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

from recbole_mars.serving.folders import MANIFEST

__all__ = ["main"]

_SMOKE = Path("runs/smoke")


def main(arguments: list[str] | None = None) -> None:
    """Serve the main job's model from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m recbole_mars.serve_demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--run", type=Path, default=Path("runs/demo"), help="folder of the main job (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 for a free one (%(default)s)")
    parser.add_argument("--once", action="store_true", help="stop after the requests")
    args = parser.parse_args(arguments)
    try:
        from recbole_mars.serving.showcase.serving import listening, serve_showcase

        with listening(args.port) as found:
            run, model = args.run, _model_of(args.run)
            if model is None:
                print(
                    f"{run} has no model to serve; `make demo` makes one in some minutes. "
                    f"For now the main job with tiny settings, in {_SMOKE}:\n",
                    flush=True,
                )
                run, model = _SMOKE, _smoke_model()
            tell = partial(print, flush=True)  # at once, through a pipe too
            serve_showcase(model, run / "items.json", run / "serving", found, args.once, tell)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def _model_of(run: Path) -> Path | None:
    """The model folder that the main job has left, None if there is none."""
    file = run / "metrics.json"
    if not file.is_file():
        return None
    try:
        named = json.loads(file.read_text(encoding="utf-8")).get("model")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is damaged: {error}; run the main job again") from None
    folder = run / str(named)
    return folder if named is not None and (folder / MANIFEST).is_file() else None


def _smoke_model() -> Path:
    command = [sys.executable, "-m", "recbole_mars.demo", "--smoke", "--output", str(_SMOKE)]
    done = subprocess.run([*command, "--show_progress=False"])
    model = _model_of(_SMOKE)
    if done.returncode or model is None:
        raise ValueError(f"`{shlex.join(command)}` has left no model; it says why above")
    print()
    return model


if __name__ == "__main__":
    main()
