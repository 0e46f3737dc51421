# `make` alone lists what there is. demo and test need the Rust toolchain, a C compiler and make; the other targets say what they need.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# Every target that begins with a letter names what to do, and no file.
.PHONY: $(shell sed -n 's/^\([a-z][a-z0-9-]*\):.*/\1/p' $(MAKEFILE_LIST)) build-ViewFunction build-RedriveFunction

# The processor that build targets build for: arm64 (Lambda's cheaper one) or x86_64; and that of this machine.
ARCH ?= arm64
ARCH_HERE := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86_64)
# Where `make dynamodb` listens, and the view's table in it.
DYNAMODB_PORT ?= 8000
VIEW_TABLE ?= dsql-view
# Where `cargo lambda watch` listens for invocations.
LAMBDA_PORT ?= 9000
EVENT ?= events/01-insert.json
# How long `make fuzz` works on each target, and which one alone; all of them, where it is empty.
FUZZ_SECONDS ?= 60
TARGET ?=

# What `make watch` keeps; give your own tables to keep others than the sample events have.
SOURCE_TABLES ?= $(shell cat events/source-tables.txt)
export SOURCE_TABLES

# What comes from PyPI goes into a virtual environment of the project's own.
VENV := .venv
CARGO_LAMBDA_VERSION := 1.9.2
ZIGLANG_VERSION := 0.17.1
SAM_VERSION := 1.170.0
CFN_LINT_VERSION := 1.58.0
CHECKOV_VERSION := 3.3.30
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
CARGO_MUTANTS_VERSION := 27.1.0
# For `make local`, not into .venv: ministack and the SAM CLI there each want their own version of botocore.
MINISTACK_VERSION := $(shell sed -n 's/^MINISTACK_VERSION=//p' .ci/with-services)
# As the SAM CLI has it.
SAM_TRANSLATOR_VERSION := 1.115.0
LOCAL := .tools/local/ministack-$(MINISTACK_VERSION)-$(SAM_TRANSLATOR_VERSION)
# cargo finds `cargo lambda` on the path; one that is installed already comes first.
export PATH := $(PATH):$(CURDIR)/$(VENV)/bin:$(CURDIR)/.tools/bin
export SAM_CLI_TELEMETRY := 0

say = @printf '\n\033[1m%s\033[0m\n' "$(1)"
say_building = $(call say,Building $(1). The first time takes some minutes; cargo names what it compiles.)

# Builds programs of tools/, and the functions where they are named. It compiles no crate anew that the tests or the demo have compiled:
# tests/support/Cargo.toml sees to it that all of them ask for the same features.
build_tools = cargo build --locked --package dsql-view --package dsql-view-tools $(addprefix --bin ,$(1))
run_tool = cargo run --quiet --locked --package dsql-view-tools --bin

# What runs the release binaries builds them first, if it is given no others.
release = printf '\n\033[1m%s\033[0m\n' 'Building in the release profile. The first time takes some minutes.' && cargo build --locked --release $(1)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Run the functions on the sample events and beyond the limits, and see the view after each
	$(call say_building,the functions and what they run on here)
	cargo build --locked --bins --example demo
	@cargo run --quiet --locked --example demo

# Without the bench's peers, which have no tests and other features of what all are built with: what is built here serves `make demo` and others.
test: ## Run all tests
	$(call say_building,the function and its tests)
	cargo test --locked --workspace --exclude dsql-view-peers --no-fail-fast

# The release binaries; give FUNCTION and REDRIVE to take others.
torture: ## Run the functions under kills, storms and disorder: SEED=…, CHANGES=…, DURATION=… in seconds, BATCHED_CREATES=… and DEFINITIONS=true or false
	@$(if $(FUNCTION),,$(call release,--bins))
	$(call build_tools,torture)
	@exec $(run_tool) torture

soak: ## Invoke one process INVOCATIONS=… times, and draw what it uses
	@$(if $(FUNCTION),,$(call release,--bin dsql-view))
	$(call build_tools,soak)
	@exec $(run_tool) soak

dashboard: ## Draw the template's dashboard, with the metrics of a local run
	$(call say_building,the functions and what they run on here)
	$(call build_tools,dsql-view redrive dashboard)
	@exec $(run_tool) dashboard

# With the binaries of the dev profile; give FUNCTION and REDRIVE to take others. What is given here goes into the environment.
local: $(LOCAL) ## Run the whole of it on one machine, and look on: RATE=…, DISORDER=…, DUPLICATES=…, FAULTS=…, DURATION=…
	$(call say_building,the functions and what they run on here)
	$(call build_tools,dsql-view redrive local)
	@PYTHON=$(dir $(LOCAL))bin/python3 exec $(run_tool) local

fuzz: ## Fuzz what reads bytes from outside, FUZZ_SECONDS for each TARGET; takes a nightly toolchain
	@scripts/fuzz $(FUZZ_SECONDS) $(TARGET)

# With the binaries of the dev profile; give FUNCTION and REDRIVE to take others.
e2e: ## Compare the view with a PostgreSQL after random transactions: SEED=…, CHANGES=…
	$(call say_building,the functions and what they run on here)
	$(call build_tools,dsql-view redrive e2e)
	@.ci/with-services .ci/with-postgres $(run_tool) e2e

mutants: ## Change the code in small ways, and tell which changes no test notices; takes hours
	@scripts/mutants

# Give FUNCTION to measure another binary, and BEFORE to compare a change without definitions with that of an earlier one. Python, Node.js and valgrind show what they are for, where they are there.
# Each of the binaries is built alone and after the criterion bench, or they would get the features of what is built with them.
bench: ## Measure all figures of docs/benchmarks.md, for some 25 minutes: ONLY=peers,start,… for a part, RUNS=… of each
	$(if $(findstring pipeline,$(or $(ONLY),pipeline)),cargo bench --locked --bench pipeline)
	@$(if $(FUNCTION),,$(call release,--bin dsql-view))
	cargo build --locked --release --package dsql-view-peers
	cargo build --locked --release --package dsql-view-bench --package dynamodb-stub
	benches/peers/install
	@target/release/bench

events: ## Write events/*.json anew from events/source/
	cargo run --quiet --locked --example events

event: ## Make a Lambda event, TO=….json, of your own change records, FROM=….json
	@cargo run --quiet --locked --example events -- "$(FROM)" "$(TO)"

dynamodb: ## Serve a local DynamoDB with an empty view until Ctrl-C
	$(call say,Building a local DynamoDB. The first time takes some minutes.)
	cargo build --locked --example dynamodb
	@exec cargo run --quiet --locked --example dynamodb -- serve $(DYNAMODB_PORT) $(VIEW_TABLE)

view: ## Show the view that `make dynamodb` holds
	@cargo run --quiet --locked --example dynamodb -- show $(DYNAMODB_PORT) $(VIEW_TABLE)

watch: $(VENV)/cargo-lambda ## Serve the function by `cargo lambda watch`, on the view of `make dynamodb`
	VIEW_TABLE=$(VIEW_TABLE) \
	AWS_ENDPOINT_URL_DYNAMODB=$${AWS_ENDPOINT_URL_DYNAMODB:-http://127.0.0.1:$(DYNAMODB_PORT)} AWS_REGION=$${AWS_REGION:-us-east-1} \
	AWS_ACCESS_KEY_ID=$${AWS_ACCESS_KEY_ID:-local} AWS_SECRET_ACCESS_KEY=$${AWS_SECRET_ACCESS_KEY:-local} \
	NO_PROXY=127.0.0.1,localhost,$$NO_PROXY no_proxy=127.0.0.1,localhost,$$no_proxy \
	cargo lambda watch --bin dsql-view --invoke-address 127.0.0.1 --invoke-port $(LAMBDA_PORT)

invoke: $(VENV)/cargo-lambda ## Invoke the watched function with EVENT=events/….json
	cargo lambda invoke dsql-view --invoke-address 127.0.0.1 --invoke-port $(LAMBDA_PORT) --data-file $(EVENT)

# The processors are those that cargo-lambda builds for. Given in this way, they take the place of every other rustflag: of the
# configuration in a folder above or in CARGO_HOME, and of RUSTFLAGS. A target-cpu=native there would be a function that Lambda cannot run.
lambda_build = CARGO_ENCODED_RUSTFLAGS=-Ctarget-cpu=$(if $(filter arm64,$(ARCH)),neoverse-n1,haswell) \
	cargo lambda build --locked --release $(if $(filter arm64,$(ARCH)),--arm64,--x86-64)

# Puts the view definitions beside a binary, where the function looks for them; or takes away those that the project has no longer.
with_definitions = rm -f "$(1)/views.toml"$(if $(wildcard views.toml), && cp views.toml "$(1)/")

build: $(VENV)/cargo-lambda ## Build both functions for Lambda with cargo-lambda, for ARCH
	$(call say,Building the functions for $(ARCH) in the release profile. The first time takes some minutes.)
	$(lambda_build) --bin dsql-view --bin redrive
	$(call with_definitions,target/lambda/dsql-view)
	$(call with_definitions,target/lambda/redrive)

# `sam build` calls these with ARTIFACTS_DIR set.
build-ViewFunction: BINARY := dsql-view
build-RedriveFunction: BINARY := redrive
build-ViewFunction build-RedriveFunction: $(VENV)/cargo-lambda
	$(lambda_build) --bin $(BINARY) --lambda-dir "$(ARTIFACTS_DIR)" --flatten $(BINARY)
	$(call with_definitions,$(ARTIFACTS_DIR))

# The scripts read their settings from the environment, where make puts what is given to it.
cdc-create: ## Make a change stream, with Kinesis stream and role: CLUSTER_ID=…, and STREAM=…, ROLE=… for other names
	@scripts/cdc-create

cdc-status: ## Show what there is of the change stream of CLUSTER_ID=…, and what to do
	@scripts/cdc-status

cdc-tail: ## Show the changes as they come until Ctrl-C: STREAM=…, FROM=trim for all, JSON=1 with their values
	@exec scripts/cdc-tail

cdc-delete: ## Remove what cdc-create has made for CLUSTER_ID=…; YES=1 to not be asked
	@scripts/cdc-delete

replay: ## Send quarantined records through again: PREFIX=quarantine/public.users/, of the stack STACK; FORCE=1 for those held back too
	@scripts/replay '$(PREFIX)'

deploy: $(VENV)/sam ## Build and deploy template.yaml with SAM, asking for what it needs the first time
	$(call say,Building both functions for $(ARCH))
	sam build
	@if grep -qs stack_name samconfig.toml; then sam deploy; else printf '\n\033[1m%s\033[0m\n%s\n%s\n' \
	'SAM asks for the stack and its parameters. Return takes what stands in brackets.' \
	'SourceTables names the tables, unless views.toml does. make cdc-create has named StreamArn, ClusterId, MakeCdcRole and CdcStreamId. An empty StreamArn has the stack make a stream.' \
	'Say yes where it asks whether to save: then make deploy asks for nothing the next time.'; \
	sam deploy --guided --stack-name dsql-view --capabilities CAPABILITY_IAM; fi

# CHECKS are for every commit. PROOFS take more: release builds, local services, and runs of a fixed time.
CHECKS := format lint test stale-events template deny check-replay check-demo check-bench
PROOFS := check-reader check-services check-commands check-local e2e check-invoke check-build check-torture check-soak

check: ## What to run before a commit
	@.ci/timed $(CHECKS)

prove: ## The rest of what CI runs
	@.ci/timed $(PROOFS)

ci: ## Everything that CI runs: check and prove
	@.ci/timed $(CHECKS) $(PROOFS)

# The lock file of the fuzzers must fit the library's dependencies too. tests/corpus.rs compiles their checks, and runs them on the corpus.
format:
	$(call say,Formatting)
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo metadata --quiet --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null

lint:
	$(call say,Lints and documentation)
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' cargo doc --locked --no-deps --workspace --document-private-items

stale-events:
	$(call say,The sample events are what their sources say)
	$(MAKE) --no-print-directory events
	git diff --exit-code -- events

template: $(VENV)/sam .tools/checkov/bin/checkov
	$(call say,The SAM template)
	cfn-lint template.yaml
	AWS_DEFAULT_REGION=us-east-1 sam validate --lint
	.ci/checkov

deny: .tools/bin/cargo-deny
	$(call say,Licences and sources of the dependencies)
	.ci/deny

# Not in the gate: `make test` runs again all that fuzzing has found.
check-fuzz:
	$(call say,Fuzzing for a moment)
	scripts/fuzz 20

check-demo:
	$(call say,The demo shows what it promises)
	.ci/check-demo

check-replay:
	$(call say,The replay of the quarantine)
	.ci/check-replay

# With the binaries of the dev profile, and counts in place of times.
check-bench:
	$(call say,What of the bench can be counted)
	cargo build --locked --package dsql-view --package dsql-view-bench --package dynamodb-stub --bins
	RUNS=1 target/debug/bench check

# By the clients of DynamoDB that people have, which take Python and Node.js.
check-reader:
	$(call say,The readers of docs/large-rows.md beside the function)
	cargo build --locked --bin dsql-view --example dynamodb
	.ci/with-services .ci/check-reader

# Kinesis, SQS and S3 by their real interfaces, which take Node.js and Python.
check-services:
	$(call say,The redrive function beside a local Kinesis SQS and S3)
	cargo test --locked --no-run --test services
	.ci/with-services cargo test --locked --test services -- --ignored

# Each is one command after the other, so that they take turns with two processors.
check-commands: $(VENV)/sam
	@$(MAKE) --no-print-directory --jobs=2 check-cdc check-runbook

# What these two call make for has nothing to do with the jobs above.
check-cdc:
	$(call say,From a cluster to its change stream and back)
	env -u MAKEFLAGS -u MFLAGS .ci/with-services .ci/check-cdc

check-runbook: $(VENV)/sam
	$(call say,The commands of docs/runbook.md and docs/upgrading.md)
	$(call build_tools,dsql-view redrive)
	env -u MAKEFLAGS -u MFLAGS .ci/with-services .ci/check-runbook

# Not in the gate: it draws a picture for the pages.
check-dashboard:
	$(call say,The dashboard of a local run)
	rm -f target/dashboard.png
	$(MAKE) --no-print-directory dashboard
	test -s target/dashboard.png

check-local: $(LOCAL)
	$(call say,The whole of it on one machine)
	.ci/check-local

check-invoke: $(VENV)/cargo-lambda
	$(call say,One invocation by cargo-lambda)
	.ci/check-invoke

# The release binaries, for the processor of this machine: the Rust target of the other one may be missing. make builds them again only if
# a source has changed.
BUILT := .aws-sam/built
check-build: $(BUILT)
$(BUILT): Makefile template.yaml Cargo.toml Cargo.lock .cargo/config.toml $(wildcard views.toml) $(shell find src -type f 2>/dev/null) | $(VENV)/cargo-lambda $(VENV)/sam
	$(call say,sam build)
	.ci/check-flags
	@# Both at once, on all processors: sam build then finds them built.
	@$(MAKE) --no-print-directory build ARCH=$(ARCH_HERE)
	ARCH=$(ARCH_HERE) sam build
	test -x .aws-sam/build/ViewFunction/bootstrap
	test -x .aws-sam/build/RedriveFunction/bootstrap
	mkdir -p target/deploy && cp .aws-sam/build/ViewFunction/bootstrap target/deploy/bootstrap
	cargo lambda deploy dsql-view --dry --binary-path target/deploy/bootstrap --region us-east-1 \
	--memory 512 --timeout 60 --env-file function.env.example --log-retention 30 --output-format json
	@touch $@

check-torture: $(BUILT)
	$(call say,Kills storms and disorder)
	.ci/check-torture

check-soak: $(BUILT)
	$(call say,Ten thousand invocations of one process)
	@$(MAKE) --no-print-directory soak FUNCTION=$(CURDIR)/.aws-sam/build/ViewFunction/bootstrap

$(VENV)/bin/python3:
	python3 -m venv $(VENV)

$(VENV)/cargo-lambda:
	@mkdir -p $(VENV)
	@command -v cargo-lambda || { echo "Installing cargo-lambda into $(VENV)" && $(MAKE) --no-print-directory $(VENV)/bin/python3 && \
	$(VENV)/bin/pip install --quiet --disable-pip-version-check cargo-lambda==$(CARGO_LAMBDA_VERSION) ziglang==$(ZIGLANG_VERSION) && \
	ln -sf "$$($(VENV)/bin/python3 -c 'import os, ziglang; print(os.path.dirname(ziglang.__file__))')/zig" $(VENV)/bin/zig; }
	@touch $@

$(LOCAL):
	@echo "Installing ministack and SAM's translator into $(@D)"
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check ministack==$(MINISTACK_VERSION) aws-sam-translator==$(SAM_TRANSLATOR_VERSION)
	@touch $@

$(VENV)/sam: | $(VENV)/bin/python3
	@echo "Installing the SAM CLI and cfn-lint into $(VENV)"
	$(VENV)/bin/pip install --quiet --disable-pip-version-check aws-sam-cli==$(SAM_VERSION) cfn-lint==$(CFN_LINT_VERSION)
	@touch $@

# These have little to do, and are built in half the time where nothing is optimized.
.tools/bin/cargo-fuzz:
	@echo "Building cargo-fuzz, which takes a minute"
	cargo install --quiet --locked --debug --root .tools cargo-fuzz@$(CARGO_FUZZ_VERSION)

.tools/bin/cargo-mutants:
	@echo "Building cargo-mutants, which takes a minute"
	cargo install --quiet --locked --root .tools cargo-mutants@$(CARGO_MUTANTS_VERSION)

.tools/bin/cargo-deny:
	@echo "Building cargo-deny, which takes some minutes"
	cargo install --quiet --locked --debug --no-default-features --root .tools cargo-deny@$(CARGO_DENY_VERSION)

# Not into .venv: it wants other versions of what the SAM CLI wants too.
.tools/checkov/bin/checkov:
	@echo "Installing checkov into .tools/checkov"
	python3 -m venv .tools/checkov
	.tools/checkov/bin/pip install --quiet --disable-pip-version-check checkov==$(CHECKOV_VERSION)
