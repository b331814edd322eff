# Every command of the project. `make` alone lists them.
#
# The environment is made once, in .venv, from requirements-dev.lock: exact versions with
# hashes, fetched by pip as pip is configured on this machine. Recipes call its interpreter by
# a relative path, so a checkout may stand below a folder with spaces.

.DEFAULT_GOAL := help
.PHONY: help setup run demo test evaluate conformance bench interop interop-build fuzz api-fuzz crash soak dashboard dashboard-build dashboard-test dashboard-screenshots supabase-deno supabase-test supabase-check lint format types imports proto docs lock check clean

PY := .venv/bin/python
READY := .venv/.ready
LOCKED := .venv/.locked
SOURCES := driftlock_otlp tests deploy hatch_build.py

help: ## Show this list
	@echo "usage: make TARGET [ARGS=\"...\"]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 26
	@echo
	@echo "The first one that needs it sets up .venv; all it takes is Python 3.11 or newer."

setup: $(READY) ## Make .venv with the locked dependencies

$(LOCKED): requirements-dev.lock pyproject.toml
	@python=; \
	for candidate in "$$PYTHON" python3 python3.13 python3.12 python3.11 python3.14 python; do \
	    if [ -n "$$candidate" ] && "$$candidate" -c \
	        'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "Driftlock needs Python 3.11 or newer with its venv module, and found none." >&2; \
	    echo "  Debian, Ubuntu: apt-get install python3 python3-venv" >&2; \
	    echo "  macOS:          brew install python" >&2; \
	    echo "  elsewhere:      make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	fi; \
	echo "Setting up .venv with $$("$$python" --version) (once, about a minute) ..."; \
	"$$python" -m venv --clear .venv
	@PIP_USER=0 $(PY) -m pip install --quiet --require-hashes --requirement requirements-dev.lock
	@touch $(LOCKED)

# Compiles the scanner, too, if there is a C compiler.
$(READY): $(LOCKED) driftlock_otlp/otlp/scan.py hatch_build.py
	@PIP_USER=0 $(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(READY)

run: $(READY) ## Start the sidecar: make run ARGS="--config config/sidecar.yaml"
	@$(PY) -m driftlock_otlp run $(ARGS)

demo: $(READY) ## Watch it find anomalies in made-up telemetry
	@$(PY) deploy/demo/demo.py $(ARGS)

# Most tests wait for processes and clocks, so three at once are twice as quick on two cores. A file
# stays on one of them: its tests share what is expensive to start.
test: $(READY) ## Run the tests: make test ARGS="tests/unit -k config"
	@$(PY) -m pytest --numprocesses $(or $(JOBS),3) --dist loadfile $(ARGS)

evaluate: $(READY) ## Judge detection on labelled data and write docs/results: make evaluate DATA=DIR
	@if [ ! -d "$(DATA)" ]; then \
	    echo "make evaluate DATA=DIR: DIR holds the labelled data sets, which are not part of this project;" >&2; \
	    echo "docs/detection.md says which, and where they come from." >&2; exit 2; fi
	@$(PY) -m driftlock_otlp evaluate $(or $(SUITES),all) --data "$(DATA)" --report docs/results $(ARGS)

conformance: $(READY) ## Check every clause of OTLP and write docs/conformance.md
	@$(PY) -m tests.conformance.report

interop-build: $(READY)
	@$(PY) -m tests.interop.build

interop: interop-build ## Send through a real Collector, rotel and the SDKs (needs Go; Node for one of them)
	@$(PY) -m pytest tests/interop $(ARGS)

bench: interop-build ## Measure beside the Collector and rotel, in turns: make bench ARGS="--rounds 5" (needs Go)
	@$(PY) -m tests.benchmark.forwarding $(ARGS)

fuzz: $(READY) ## Fuzz what reads bytes from outside: make fuzz SECONDS=600
	@$(PY) -m tests.fuzz.run --seconds $(or $(SECONDS),30)

api-fuzz: $(READY) ## Make up requests from the OpenAPI: make api-fuzz SECONDS=600
	@$(PY) -m tests.fuzz.api --seconds $(or $(SECONDS),60)

crash: $(READY) ## Kill the sidecar under load and check every record: make crash N=100
	@$(PY) -m tests.crash.run --kills $(or $(N),10) $(if $(SEED),--seed $(SEED))

soak: $(READY) ## Ask twice its capacity of the sidecar: make soak MINUTES=10
	@$(PY) -m tests.soak --minutes $(or $(MINUTES),10)

supabase-deno:
	@if command -v npm >/dev/null; then npm ci --prefix supabase/functions --no-fund --no-audit --silent; \
	else echo "npm is not installed: the edge functions are NOT tested" >&2; fi

supabase-test: $(READY) supabase-deno ## Test the Supabase project on a PostgreSQL of its own
	@$(PY) -m pytest tests/supabase $(ARGS)

supabase-check: $(READY) ## Check a hosted project: SUPABASE_SECRET_KEY=… make supabase-check URL=https://…
	@if [ -z "$(URL)" ] || [ -z "$$SUPABASE_SECRET_KEY" ]; then \
	    echo "SUPABASE_SECRET_KEY=sb_secret_… make supabase-check URL=https://abcd.supabase.co" >&2; exit 2; fi
	@$(PY) -m driftlock_otlp supabase check --config tests/supabase/hosted.yaml --set supabase.url="$(URL)" $(ARGS)

# The pages of the dashboard are built beforehand and committed: only who changes them needs Node.
PAGES := supabase/dashboard
NODE_READY := $(PAGES)/node_modules/.package-lock.json

$(NODE_READY): $(PAGES)/package-lock.json
	@command -v npm >/dev/null || { echo "The dashboard's sources need Node 20.19 or newer (https://nodejs.org)." >&2; exit 1; }
	@npm ci --prefix $(PAGES) --no-audit --no-fund --silent
	@touch $(NODE_READY)

dashboard: $(READY) $(NODE_READY) ## Work on the dashboard with live reload: make dashboard SIDECAR=http://127.0.0.1:8080
	@$(PY) -m tests.dashboard.develop $(if $(SIDECAR),--sidecar $(SIDECAR))

dashboard-build: $(NODE_READY) ## Build the dashboard into the package
	@npm run --silent --prefix $(PAGES) build

dashboard-test: $(READY) $(NODE_READY) ## Test the dashboard in a real browser (needs Node and Chromium)
	@npm run --silent --prefix $(PAGES) types
	@npm run --silent --prefix $(PAGES) test
	@DASHBOARD_TESTS=1 $(PY) -m pytest tests/dashboard -rs --capture=no $(ARGS)

dashboard-screenshots: $(READY) $(NODE_READY) ## Take the pictures in docs/screenshots
	@DASHBOARD_TESTS=1 DASHBOARD_SCREENSHOTS=$(CURDIR)/docs/screenshots $(PY) -m pytest tests/dashboard -k pictures --capture=no

lint: $(READY) ## Check style and formatting
	@$(PY) -m ruff check $(SOURCES)
	@$(PY) -m ruff format --check $(SOURCES)

format: $(READY) ## Correct formatting and what style can be corrected
	@$(PY) -m ruff check --fix $(SOURCES)
	@$(PY) -m ruff format $(SOURCES)

types: $(READY) ## Check types
	@$(PY) -m mypy

imports: $(READY) ## Check who imports whom
	@.venv/bin/lint-imports

proto: $(READY) ## Write the code that follows from proto/
	@$(PY) -m grpc_tools.protoc -Idriftlock_otlp/api/management_v1=proto/driftlock/management/v1 \
	    --python_out=. --pyi_out=. --grpc_python_out=. driftlock_otlp/api/management_v1/management.proto

docs: $(READY) ## Write the generated pages (configuration, metrics)
	@$(PY) -m tests.docs.generate

lock: ## Renew uv.lock and what follows from it (needs uv)
	uv lock --upgrade
	uv export --quiet --frozen --no-header --no-annotate --no-dev --no-emit-project --output-file requirements.lock
	uv export --quiet --frozen --no-header --no-annotate --no-emit-project --output-file requirements-dev.lock
	printf 'hatchling\ncython\nsetuptools\n' | uv pip compile --quiet - --constraint requirements-dev.lock --generate-hashes --universal \
	    --python-version 3.11 --no-header --no-annotate --output-file requirements-build.lock

check: lint types imports test ## All of lint, types, imports and test

clean: ## Remove .venv, caches and build products
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find driftlock_otlp tests deploy -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f driftlock_otlp/otlp/scan.*.so
