# `make` alone lists what there is. demo and test need the Rust toolchain, a C compiler and make; the other targets say what they need.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The processor that build targets build for: arm64 (Lambda's cheaper one) or x86_64.
ARCH ?= arm64
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

# Programs of tools/ and benches/, with what they run. They are built with the features that the tests and the demo have (the example is named
# for that), so that nothing that these share is built anew.
dev := $(or $(CARGO_TARGET_DIR),target)/debug
programs = cargo build --locked --workspace --exclude dsql-view-peers --example events $(addprefix --bin ,$(1))

# What runs the release binaries builds them first, if it is given no others.
release = printf '\n\033[1m%s\033[0m\n' 'Building in the release profile. The first time takes some minutes.' && cargo build --locked --release $(1)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Run the functions on the sample events and beyond the limits, and see the view after each
	$(call say,Building the functions and what they run on here. The first time takes some minutes; cargo names what it compiles.)
	cargo build --locked --bins --example demo
	@cargo run --quiet --locked --example demo

# Without the bench's peers, which have no tests and other features of what all are built with: what is built here serves `make demo` and others.
.PHONY: test
test: ## Run all tests
	$(call say,Building the function and its tests. The first time takes some minutes; cargo names what it compiles.)
	cargo test --locked --workspace --exclude dsql-view-peers --no-fail-fast

# The release binaries; give FUNCTION and REDRIVE to take others.
.PHONY: torture
torture: ## Run the functions under kills, storms and disorder: SEED=…, CHANGES=…, DURATION=… in seconds, BATCHED_CREATES=true or false
	@$(if $(FUNCTION),,$(call release,--bins))
	$(call programs,torture)
	@FUNCTION=$(FUNCTION) REDRIVE=$(REDRIVE) SEED=$(SEED) CHANGES=$(CHANGES) DURATION=$(DURATION) BATCHED_CREATES=$(BATCHED_CREATES) \
	exec $(dev)/torture

.PHONY: soak
soak: ## Invoke one process INVOCATIONS=… times, and draw what it uses
	@$(if $(FUNCTION),,$(call release,--bin dsql-view))
	$(call programs,soak)
	@FUNCTION=$(FUNCTION) INVOCATIONS=$(INVOCATIONS) exec $(dev)/soak

.PHONY: dashboard
dashboard: ## Draw the template's dashboard, with the metrics of a local run
	$(call say,Building the functions and what they run on here. The first time takes some minutes; cargo names what it compiles.)
	$(call programs,dsql-view redrive dashboard)
	@exec $(dev)/dashboard

# With the binaries of the dev profile; give FUNCTION and REDRIVE to take others. What is given here goes into the environment.
.PHONY: local
local: $(LOCAL) ## Run the whole of it on one machine, and look on: RATE=…, DISORDER=…, DUPLICATES=…, FAULTS=…, DURATION=…
	$(call say,Building the functions and what they run on here. The first time takes some minutes; cargo names what it compiles.)
	$(call programs,dsql-view redrive local)
	@PYTHON=$(dir $(LOCAL))bin/python3 exec $(dev)/local

.PHONY: fuzz
fuzz: ## Fuzz what reads bytes from outside, FUZZ_SECONDS for each TARGET; takes a nightly toolchain
	@scripts/fuzz $(FUZZ_SECONDS) $(TARGET)

# With the binaries of the dev profile; give FUNCTION and REDRIVE to take others.
.PHONY: e2e
e2e: ## Compare the view with a PostgreSQL after random transactions: SEED=…, CHANGES=…
	$(call say,Building the functions and what they run on here. The first time takes some minutes; cargo names what it compiles.)
	$(call programs,dsql-view redrive e2e)
	@SEED=$(SEED) CHANGES=$(CHANGES) .ci/with-services .ci/with-postgres $(dev)/e2e

.PHONY: mutants
mutants: ## Change the code in small ways, and tell which changes no test notices; takes hours
	@scripts/mutants

# Give FUNCTION to measure another binary. Python, Node.js and valgrind show what they are for, where they are there.
# Each of the binaries is built alone and after the criterion bench, or they would get the features of what is built with them.
.PHONY: bench
bench: ## Measure all that BENCHMARKS.md tells, for some 25 minutes: ONLY=peers,start,… for a part, RUNS=… of each
	$(if $(findstring pipeline,$(or $(ONLY),pipeline)),cargo bench --locked --bench pipeline)
	@$(if $(FUNCTION),,$(call release,--bin dsql-view))
	cargo build --locked --release --package dsql-view-peers
	cargo build --locked --release --package dsql-view-bench --package dynamodb-stub
	benches/peers/install
	@FUNCTION=$(FUNCTION) ONLY=$(ONLY) RUNS=$(RUNS) target/release/bench

.PHONY: events
events: ## Write events/*.json anew from events/source/
	cargo run --quiet --locked --example events

.PHONY: event
event: ## Make a Lambda event, TO=….json, of your own change records, FROM=….json
	@cargo run --quiet --locked --example events -- "$(FROM)" "$(TO)"

.PHONY: dynamodb
dynamodb: ## Serve a local DynamoDB with an empty view until Ctrl-C
	$(call say,Building a local DynamoDB. The first time takes some minutes.)
	cargo build --locked --example dynamodb
	@exec cargo run --quiet --locked --example dynamodb -- serve $(DYNAMODB_PORT) $(VIEW_TABLE)

.PHONY: view
view: ## Show the view that `make dynamodb` holds
	@cargo run --quiet --locked --example dynamodb -- show $(DYNAMODB_PORT) $(VIEW_TABLE)

.PHONY: watch
watch: $(VENV)/cargo-lambda ## Serve the function by `cargo lambda watch`, on the view of `make dynamodb`
	VIEW_TABLE=$(VIEW_TABLE) \
	AWS_ENDPOINT_URL_DYNAMODB=$${AWS_ENDPOINT_URL_DYNAMODB:-http://127.0.0.1:$(DYNAMODB_PORT)} AWS_REGION=$${AWS_REGION:-us-east-1} \
	AWS_ACCESS_KEY_ID=$${AWS_ACCESS_KEY_ID:-local} AWS_SECRET_ACCESS_KEY=$${AWS_SECRET_ACCESS_KEY:-local} \
	NO_PROXY=127.0.0.1,localhost,$$NO_PROXY no_proxy=127.0.0.1,localhost,$$no_proxy \
	cargo lambda watch --bin dsql-view --invoke-address 127.0.0.1 --invoke-port $(LAMBDA_PORT)

.PHONY: invoke
invoke: $(VENV)/cargo-lambda ## Invoke the watched function with EVENT=events/….json
	cargo lambda invoke dsql-view --invoke-address 127.0.0.1 --invoke-port $(LAMBDA_PORT) --data-file $(EVENT)

# The processors are those that cargo-lambda builds for. Given in this way, they take the place of every other rustflag: of the
# configuration in a folder above or in CARGO_HOME, and of RUSTFLAGS. A target-cpu=native there would be a function that Lambda cannot run.
lambda_build = CARGO_ENCODED_RUSTFLAGS=-Ctarget-cpu=$(if $(filter arm64,$(ARCH)),neoverse-n1,haswell) \
	cargo lambda build --locked --release $(if $(filter arm64,$(ARCH)),--arm64,--x86-64)

.PHONY: build
build: $(VENV)/cargo-lambda ## Build both functions for Lambda with cargo-lambda, for ARCH
	$(call say,Building the functions for $(ARCH) in the release profile. The first time takes some minutes.)
	$(lambda_build) --bin dsql-view --bin redrive

# `sam build` calls these with ARTIFACTS_DIR set.
.PHONY: build-ViewFunction build-RedriveFunction
build-ViewFunction: BINARY := dsql-view
build-RedriveFunction: BINARY := redrive
build-ViewFunction build-RedriveFunction: $(VENV)/cargo-lambda
	$(lambda_build) --bin $(BINARY) --lambda-dir "$(ARTIFACTS_DIR)" --flatten $(BINARY)

# The scripts read their settings from the environment, where make puts what is given to it.
.PHONY: cdc-create
cdc-create: ## Make a change stream, with Kinesis stream and role: CLUSTER_ID=…, and STREAM=…, ROLE=… for other names
	@scripts/cdc-create

.PHONY: cdc-status
cdc-status: ## Show what there is of the change stream of CLUSTER_ID=…, and what to do
	@scripts/cdc-status

.PHONY: cdc-tail
cdc-tail: ## Show the changes as they come until Ctrl-C: STREAM=…, FROM=trim for all, JSON=1 with their values
	@exec scripts/cdc-tail

.PHONY: cdc-delete
cdc-delete: ## Remove what cdc-create has made for CLUSTER_ID=…; YES=1 to not be asked
	@scripts/cdc-delete

.PHONY: replay
replay: ## Send quarantined records through again: PREFIX=quarantine/public.users/, of the stack STACK; FORCE=1 for those held back too
	@scripts/replay '$(PREFIX)'

.PHONY: deploy
deploy: $(VENV)/sam ## Build and deploy template.yaml with SAM, asking for what it needs the first time
	$(call say,Building both functions for $(ARCH))
	sam build
	@if grep -qs stack_name samconfig.toml; then sam deploy; else printf '\n\033[1m%s\033[0m\n%s\n%s\n' \
	'SAM asks for the stack and its parameters. Return takes what stands in brackets.' \
	'SourceTables has no default. make cdc-create has named StreamArn, ClusterId, MakeCdcRole and CdcStreamId. An empty StreamArn has the stack make a stream.' \
	'Say yes where it asks whether to save: then make deploy asks for nothing the next time.'; \
	sam deploy --guided --stack-name dsql-view --capabilities CAPABILITY_IAM; fi

.PHONY: ci
ci: format lint test stale-events template deny check-replay check-reader check-demo check-services check-commands check-bench check-local e2e check-fuzz check-invoke check-build check-torture check-soak ## Everything that CI runs

.PHONY: format
format:
	$(call say,Formatting)
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check

.PHONY: lint
lint:
	$(call say,Lints and documentation)
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' cargo doc --locked --no-deps --workspace --document-private-items

.PHONY: stale-events
stale-events:
	$(call say,The sample events are what their sources say)
	$(MAKE) --no-print-directory events
	git diff --exit-code -- events

.PHONY: template
template: $(VENV)/sam .tools/checkov/bin/checkov
	$(call say,The SAM template)
	cfn-lint template.yaml
	AWS_DEFAULT_REGION=us-east-1 sam validate --lint
	.ci/checkov

.PHONY: deny
deny: .tools/bin/cargo-deny
	$(call say,Licences and sources of the dependencies)
	.ci/deny

.PHONY: check-fuzz
check-fuzz:
	$(call say,Fuzzing for a moment)
	scripts/fuzz 20

.PHONY: check-demo
check-demo:
	$(call say,The demo shows what it promises)
	.ci/check-demo

.PHONY: check-replay
check-replay:
	$(call say,What the README says to type)
	.ci/check-replay

# By the clients of DynamoDB that people have, which take Python and Node.js.
.PHONY: check-reader
check-reader:
	$(call say,The readers of README.md beside the function)
	cargo build --locked --bin dsql-view --example dynamodb
	.ci/with-services .ci/check-reader

# With the binaries of the dev profile, and counts in place of times. The examples are named so that nothing that the tests have
# built is built anew.
.PHONY: check-bench
check-bench:
	$(call say,What of the bench can be counted)
	cargo build --locked --workspace --bins --examples
	RUNS=1 target/debug/bench check

# Kinesis, SQS and S3 by their real interfaces, which take Node.js and Python.
.PHONY: check-services
check-services:
	$(call say,The redrive function beside a local Kinesis SQS and S3)
	cargo test --locked --no-run --test services
	.ci/with-services cargo test --locked --test services -- --ignored

# Each is one command after the other, so that they take turns with two processors. What they call make for is none of this.
.PHONY: check-commands
check-commands: $(VENV)/sam
	@$(MAKE) --no-print-directory --jobs=2 check-cdc check-runbook check-dashboard

.PHONY: check-dashboard
check-dashboard:
	$(call say,The dashboard of a local run)
	rm -f target/dashboard.png
	$(MAKE) --no-print-directory dashboard
	test -s target/dashboard.png

.PHONY: check-cdc
check-cdc:
	$(call say,From a cluster to its change stream and back)
	env -u MAKEFLAGS -u MFLAGS .ci/with-services .ci/check-cdc

.PHONY: check-local
check-local: $(LOCAL)
	$(call say,The whole of it on one machine)
	.ci/check-local

.PHONY: check-runbook
check-runbook: $(VENV)/sam
	$(call say,What RUNBOOK.md and UPGRADING.md say to type)
	cargo build --locked --bins --example events
	env -u MAKEFLAGS -u MFLAGS .ci/with-services .ci/check-runbook

.PHONY: check-invoke
check-invoke: $(VENV)/cargo-lambda
	$(call say,One invocation by cargo-lambda)
	.ci/check-invoke

# For the processor of this machine: the other one's Rust target may not be there.
.PHONY: check-build
check-build: $(VENV)/cargo-lambda $(VENV)/sam
	$(call say,sam build)
	.ci/check-flags
	@# Both at once, on all processors: sam build then finds them built.
	@$(MAKE) --no-print-directory build ARCH=$(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86_64)
	ARCH=$(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86_64) sam build
	test -x .aws-sam/build/ViewFunction/bootstrap
	test -x .aws-sam/build/RedriveFunction/bootstrap
	mkdir -p target/deploy && cp .aws-sam/build/ViewFunction/bootstrap target/deploy/bootstrap
	cargo lambda deploy dsql-view --dry --binary-path target/deploy/bootstrap --region us-east-1 \
	--memory 512 --timeout 60 --env-file function.env.example --log-retention 30 --output-format json

# With the binaries of check-build.
.PHONY: check-torture
check-torture: check-build
	$(call say,Kills storms and disorder)
	.ci/check-torture

.PHONY: check-soak
check-soak: check-build
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
