# make demo    the main job, from end to end       (more flags: make demo ARGS="...")
# make smoke   the same with tiny settings
# make serve   afterwards: its model in service, with a page to look at (ARGS="--port 8001")
# make test    lint, type check and tests          (more flags: make test ARGS="-k stein")
#
# Each installs into .venv first when needed; PYTHON=/path/to/python names the interpreter for it.

VENV  := .venv
DEMO  := $(VENV)/bin/python -m recbole_mars.demo
SMOKE := $(DEMO) --smoke --output runs/smoke

PYTHONS   := $(or $(PYTHON),python3.11 python3.10 python3.9 python3)
PIP       := $(VENV)/bin/python -m pip --disable-pip-version-check
TORCH_CPU := https://download.pytorch.org/whl/cpu

.PHONY: demo smoke serve test venv

demo: venv
	$(DEMO) $(ARGS)

smoke: venv
	$(SMOKE) $(ARGS)

serve: venv
	$(VENV)/bin/python -m recbole_mars.serve_demo $(ARGS)

test: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest $(ARGS)

venv: $(VENV)/.installed

# The stamp is written last, so an interrupted installation is taken up again.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt Makefile
	@$(find_or_make_venv)
	$(PIP) install --quiet "pip>=22.3"
	@$(install_cpu_torch)
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

# A .venv that works is kept; one that is missing, half made or of another Python is made anew.
define find_or_make_venv
supported() { "$$1" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))'; }; \
if supported $(VENV)/bin/python && $(VENV)/bin/python -m pip --version; then exit; fi \
    >/dev/null 2>&1; \
for python in $(PYTHONS); do \
    supported "$$python" 2>/dev/null || continue; \
    if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
        echo "Making $(VENV) with $$python; the first installation takes some minutes"; \
        exec "$$python" -m venv --clear $(VENV); \
    fi; \
    bare="$$python"; \
done; \
if [ -n "$$bare" ]; then \
    echo "$$bare cannot make a $(VENV): on Debian or Ubuntu, apt-get install $$("$$bare" -c \
        'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"; \
else \
    echo "Python 3.9, 3.10 or 3.11 is needed, none found as '$(PYTHONS)': apt-get install" \
        "python3.11 python3.11-venv, or uv python install 3.11, or pyenv install 3.11," \
        "then name it with make PYTHON=/path/to/python"; \
fi >&2; \
exit 1
endef

# On Linux, PyPI's torch comes with several GB of CUDA packages, of no use without an NVIDIA GPU.
define install_cpu_torch
if [ "$$(uname)" != Linux ] || nvidia-smi -L >/dev/null 2>&1; then exit; fi; \
answers='import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)'; \
$(VENV)/bin/python -c "$$answers" $(TORCH_CPU)/torch/ 2>/dev/null \
    && $(PIP) install --quiet --constraint constraints.txt --no-deps --index-url $(TORCH_CPU) torch \
    || echo "No CPU build of torch from $(TORCH_CPU); installing the default one"
endef
