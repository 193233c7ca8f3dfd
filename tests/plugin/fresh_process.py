"""Scripts in a Python process of their own, which knows nothing of the tests' one."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import recbole_mars

REPOSITORY = Path(recbole_mars.__file__).resolve().parents[1]


def in_fresh_process(code, folder, *arguments):
    """Run a script with recbole_mars importable; returns what it printed last, as JSON."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(code))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])
