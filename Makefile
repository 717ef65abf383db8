# Two commands do everything, set-up included: `make demo` and `make test`. `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: docs help setup demo run test lint dashboards bench bench-index bench-btsp recall eval-recall eval-scopes eval-updates eval-science eval-ablation eval-continual eval-fusion eval-personal train-tiny bench-chat bench-consensus bench-scale sim eval-reliability plots fuzz fuzz-rest test-deploy format proto images clean

VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS := gateway,memory-node,consensus,llm,cli,mcp,neuromorphic,doors,train,dev
# The interpreter that makes the venv; the first of these that runs and is at least 3.11. Set PYTHON=… to choose another.
PYTHON ?= python3.11 python3.12 python3.13 python3.14 python3
STAMP := $(VENV)/.ndml-setup
PINS := pyproject.toml setup.py constraints.txt $(wildcard ndml/btsp/kernels/*.c ndml/crdt/*.c services/memory_node/signals/*.c) $(wildcard ndml/*/requirements.in services/*/requirements.in tests/requirements.in tests/*/requirements.in)
# Workers of `make test`: half the suite waits for processes, more workers than cores make it slower.
TEST_WORKERS ?= 2
TESTS ?= tests

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1|/' | while IFS='|' read -r name text; do printf '  make %-16s %s\n' "$$name" "$$text"; done

setup: $(STAMP) ## Make .venv and install the pinned dependencies; runs again only when a pin changes

$(STAMP): $(PINS)
	@python=''; for candidate in $(PYTHON); do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python=$$candidate; break; fi; done; \
	if [ -z "$$python" ]; then echo "NDML needs Python 3.11 or newer with venv; tried: $(PYTHON)." >&2; \
	  echo "Install it (Debian: apt-get install python3.11-venv, macOS: brew install python@3.11), or run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; fi; \
	if [ ! -x $(BIN)/python ]; then echo "[1/3] virtual environment $(VENV) with $$($$python --version)"; "$$python" -m venv $(VENV); \
	  else echo "[1/3] virtual environment $(VENV) is there"; fi
	@echo "[2/3] pinned dependencies (about 1 GB the first time, torch is most of it)"
	@quiet=$$($(BIN)/python -c 'import grpc' 2>/dev/null && echo --quiet || true); \
	$(BIN)/python -m pip install $$quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@echo "[3/3] checking that the pieces load"
	@$(BIN)/python -c 'import faiss, grpc, torch, transformers, ndml; print(f"      torch {torch.__version__}, faiss {faiss.__version__}, grpcio {grpc.__version__}, ndml {ndml.__version__}")'
	@touch $@

demo: setup ## Start the suite, remember two conversations, ask questions, show a trace, stop (under a minute)
	@$(BIN)/python scripts/demo.py $(ARGS)

run: setup ## Keep the suite up in the foreground; Ctrl-C drains it. ARGS="--data DIR --free-ports"
	@$(BIN)/python scripts/run.py $(ARGS)

test: setup ## Run every test; TESTS=tests/unit runs a part
	$(BIN)/python -m pytest $(TESTS) -n $(TEST_WORKERS) --dist loadgroup $(ARGS)

sim: setup ## Simulate SEEDS whole suites with faults, one on each processor, from seed FROM on (1,000 take some minutes); ARGS=--records: the lattice alone
	$(BIN)/python -m tests.sim --seeds $(or $(SEEDS),1000) --from $(or $(FROM),0) $(ARGS)

fuzz: setup ## Every decoder of what comes from outside under atheris, SECONDS=60 each (half an hour); ARGS=NAME: one of them, ARGS=--list: names
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r tests/fuzz/requirements.in
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(ARGS)

fuzz-rest: setup ## Requests made from /openapi.json, right and wrong ones, against a real suite: EXAMPLES=200 for each of 62 kinds. SEED=1
	NDML_SCHEMATHESIS_EXAMPLES=$(or $(EXAMPLES),200) NDML_SCHEMATHESIS_SEED=$(or $(SEED),1) $(BIN)/python -m pytest tests/integration/test_schemathesis.py -s $(ARGS)

test-deploy: setup ## Chart and plain manifests: lint, schema, Kubernetes 1.29 to 1.37, policies, settings, kustomize = chart, hand-over of a real suite
	$(BIN)/python -m pytest tests/deploy -n $(TEST_WORKERS) --dist loadgroup $(ARGS)

lint: setup ## ruff, mypy --strict, import floors, buf lint, committed stubs against the protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy ndml services scripts
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	PYTHON=$(BIN)/python scripts/check_stubs.sh

docs: setup ## Build the documentation as a site into build/site, strictly; `python -m http.server -d build/site` shows it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

dashboards: setup ## Write Grafana dashboards, SLO rules and alerts anew from scripts/observability, into deploy/helm/ndml/files
	$(BIN)/python -m scripts.observability

bench: setup ## Speed beside its references in one run, into docs/benchmarks.md (about three minutes on a quiet machine)
	$(BIN)/python -m tests.perf.bench_suite --markdown docs/benchmarks.md --json docs/benchmarks.json $(ARGS)

bench-index: setup ## The vector index alone, up to a million rows (five minutes, 5 GB), into docs/benchmarks-index.md
	$(BIN)/python -m tests.perf.bench_index --million --markdown docs/benchmarks-index.md $(ARGS)

recall: setup ## Evidence recall of dense search on LoCoMo (NDML_LOCOMO=file) beside an offline reference
	$(BIN)/python -m tests.quality.dense_recall $(ARGS)

eval-recall: setup ## Recall through the API, signal by signal, on LoCoMo (NDML_LOCOMO=file) and two sets of our own; latency; docs/science/recall.md
	$(BIN)/python -m tests.quality.recall --page docs/science/recall.md $(ARGS)

eval-scopes: setup ## One scope of a thousand to a million memories: recall, latency, bytes, restart (half an hour), into docs/science/scopes.md
	$(BIN)/python -m tests.quality.recall.scopes --page docs/science/scopes.md $(ARGS)

eval-updates: setup ## Facts that change: is what holds now the first hit, and what held on a day, into docs/science/updates.md
	$(BIN)/python -m tests.quality.updates --page docs/science/updates.md $(ARGS)

eval-science: setup ## Every acceptance test of the science: reference, ours, pass (minutes); ARGS="at1 at2"
	$(BIN)/python -m tests.quality.science $(ARGS)

eval-ablation: setup ## What each mechanism adds to recall, with intervals (NDML_LOCOMO=file), into docs/science/ablation.md
	$(BIN)/python -m tests.quality.ablation $(ARGS)

eval-continual: setup ## Continual learning on digits beside seven other methods (three minutes on two free cores), into docs/science/continual.md
	$(BIN)/python -m tests.quality.continual --json docs/science/continual.json --markdown docs/science/continual.md $(ARGS)

eval-fusion: setup ## Ways to read memory: every family, own text, readers trained on the boxed model, facts first met a moment ago, into docs/science/fusion.md (a quarter of an hour on a free core); ARGS="--parts trained" makes one part anew
	$(BIN)/python -m tests.quality.fusion --json docs/science/fusion.json --markdown docs/science/fusion.md $(ARGS)

eval-personal: setup ## Twenty simulated users tell, correct and ask by chat, beside no memory and the whole history, into docs/science/personal.md
	$(BIN)/python -m tests.quality.personal --json docs/science/personal.json --markdown docs/science/personal.md --plot docs/science/img/personal.png $(ARGS)

train-tiny: setup ## Train the model in the box anew from text that we write (an hour and a half on a free core), publish and examine it. WORK=DIR goes on
	$(BIN)/python -m ndml.tiny.train --work $(or $(WORK),build/tiny) $(ARGS)
	$(BIN)/python -m ndml.tiny.publish --work $(or $(WORK),build/tiny)
	$(BIN)/python -m ndml.tiny.evaluate --json docs/reference/ndml-tiny.json

plots: setup ## Draw the pictures of docs/science anew from the code (ten seconds), into docs/science/img
	$(BIN)/python -m tests.quality.science.plots $(ARGS)

bench-btsp: setup ## Write gate, trace states, consolidation: cost and quality beside search, into docs/benchmarks-btsp.md (four minutes)
	$(BIN)/python -m tests.perf.bench_btsp --markdown docs/benchmarks-btsp.md --json docs/benchmarks-btsp.json $(ARGS)

bench-chat: setup ## Chats a second, first token, what memory costs, batch against naive generation, into docs/benchmarks-chat.md
	$(BIN)/python -m tests.perf.bench_chat --markdown docs/benchmarks-chat.md --json docs/benchmarks-chat.json $(ARGS)

bench-consensus: setup ## Reconciliation, gossip, signing, delta throughput, convergence, into docs/benchmarks-consensus.md
	$(BIN)/python -m tests.perf.bench_consensus --markdown docs/benchmarks-consensus.md --json docs/benchmarks-consensus.json $(ARGS)

bench-scale: setup ## One gateway or two, one memory node to three, on this machine: rates and processor time by role, into docs/benchmarks-scale.md
	$(BIN)/python -m tests.perf.bench_scale --markdown docs/benchmarks-scale.md $(ARGS)

eval-reliability: setup ## Kill, cut off, overload, fill, tear, slow, wipe, damage and drain a running suite, into docs/reliability.md (12 minutes). ARGS="--kills 1000"
	$(BIN)/python -m tests.quality.reliability --markdown docs/reliability.md $(ARGS)

format: setup ## Format and sort imports
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

proto: setup ## Generate the stubs anew from protos/
	PYTHON=$(BIN)/python scripts/generate_stubs.sh

images: ## Build the four images, sizes printed. ARGS="--gpu", "--torch-index URL", "--base-registry MIRROR/"; docs/operations/images.md
	@python3 scripts/build_images.py $(ARGS)

clean: ## Remove the virtual environment and caches; ./data stays
	rm -rf $(VENV) .tmp .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
