# Two commands are enough: `make demo` shows Hearth at work, `make test` checks it. Both set up what they need.

SWIFT ?= swift
PYTHON ?= python3
VENV := .venv
# One file to copy, and faster than the dynamically linked one: docs/benchmarks.md.
RELEASE := -c release --static-swift-stdlib

.PHONY: help setup build functions demo test test-swift test-runtime test-thread-sanitizer lint bench soak clean

help:
	@sed -n 's/^## //p' Makefile

## make demo     deploy a real model and watch it start cold, stay warm and go to zero
demo: build functions
	@scripts/demo

## make test     set up, then all Swift and Python tests
test: setup test-runtime test-swift

## make build    .build/release/hearth
build: setup
	@scripts/quietly "building hearth (release; several minutes the first time)" $(SWIFT) build $(RELEASE) --product hearth

## make bench    the figures of docs/benchmarks.md, as a table and as JSON
bench: build functions $(VENV)/.bench
	@$(VENV)/bin/python Benchmarks/bench.py

## make soak     the long forms of the randomised tests (about half an hour)
soak: setup functions
	HEARTH_SOAK=1 $(SWIFT) test

setup:
	@scripts/setup

functions: functions/classify-image/weights/efficientnet-lite0.onnx

functions/classify-image/weights/efficientnet-lite0.onnx: functions/classify-image/make_weights.py
	@scripts/make-weights classify-image

test-swift: functions
	$(SWIFT) test

test-runtime: $(VENV)/.test
	cd runtime && ../$(VENV)/bin/python -m pytest -q
	cd runtime && ../$(VENV)/bin/python -m mypy
	cd runtime && ../$(VENV)/bin/python -m ruff check . ../functions ../Benchmarks

## make test-thread-sanitizer   the Swift tests under ThreadSanitizer
test-thread-sanitizer: setup functions
	TSAN_OPTIONS="suppressions=$(CURDIR)/Tests/thread-sanitizer.supp halt_on_error=0" \
	  $(SWIFT) test --sanitize=thread --scratch-path .build-tsan

## make lint     formatting and warnings, as CI checks them
lint: $(VENV)/.test
	$(SWIFT) format lint --strict --recursive --parallel Sources Tests Package.swift
	cd runtime && ../$(VENV)/bin/python -m ruff format --check . ../functions ../Benchmarks

$(VENV)/.test: scripts/requirements-test.txt
	@$(PYTHON) -m venv $(VENV)
	@scripts/quietly "installing test tools" $(VENV)/bin/python -m pip install -q -r $<
	@touch $@

$(VENV)/.bench: $(VENV)/.test scripts/requirements-bench.txt
	@scripts/quietly "installing benchmark tools" $(VENV)/bin/python -m pip install -q -r scripts/requirements-bench.txt
	@touch $@

## make clean    remove everything that was built
clean:
	rm -rf .build .build-tsan $(VENV) .cache functions/*/weights Benchmarks/results
