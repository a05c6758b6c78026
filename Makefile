# The two main commands are `make demo` and `make test`. Both install what they need, say what they do, and can be repeated.
.PHONY: help demo demo-monorepo test check build bench clean-demo clean-cluster

help:
	@echo "make demo           from a push to a deployed application on this machine, in minutes"
	@echo "                    (TARGET=kubernetes: on a cluster that is started for it)"
	@echo "make demo-monorepo  three images in one repository, of which one changes, in a minute"
	@echo "make test           all tests: the crates, the demos, the examples"
	@echo "make check          formatting and lints"
	@echo "make build          the release: one static binary"
	@echo "make bench          benchmarks, each figure as a ratio to a peer or a lower bound of the same run"
	@echo "make clean-cluster  stop the test cluster and remove what it left"
	@echo "make clean-demo     remove what the demos left: folder, containers, networks, volumes"

# Where the demo deploys: `local` is this machine's engine, `kubernetes` a cluster that is started for it.
TARGET ?= local

# The demo uses the development profile: it optimizes dependencies, `make test` uses it too, and a release build of the whole
# product would take too long for a first look.

demo:
	@scripts/ensure-engine
	@scripts/ensure-packages git=git cc=gcc
	@[ $(TARGET) != kubernetes ] || scripts/ensure-cluster >/dev/null
	cargo build --locked --package towpath --package xtask
	@$(if $(filter kubernetes,$(TARGET)),scripts/with-cluster) cargo xtask demo $(TARGET)

demo-monorepo:
	@scripts/ensure-engine
	@scripts/ensure-packages git=git cc=gcc
	cargo build --locked --package towpath --package xtask
	@cargo xtask demo monorepo

test:
	@scripts/ensure-engine
	@scripts/ensure-test-parts
	@scripts/ensure-cluster >/dev/null
	cargo fetch --locked --manifest-path examples/claims/Cargo.toml
	@scripts/with-cluster $(MAKE) --no-print-directory all-tests

# Runs the tests for which `test` has prepared the machine.
.PHONY: all-tests
all-tests:
	cargo test --locked --workspace
	CI=true cargo xtask demo
	CI=true cargo xtask demo kubernetes
	CI=true cargo xtask demo monorepo
	cd examples/claims && cargo test --release --locked

check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo update --locked --workspace --manifest-path fuzz/Cargo.toml
	cd examples/claims && cargo fmt --check
	cd examples/claims && cargo clippy --release --locked --all-targets -- -D warnings
	cd examples/polls && cargo fmt --check
	cd examples/polls && cargo clippy --release --locked --all-targets -- -D warnings

build:
	cargo build --locked --release --package towpath

bench:
	cargo bench --locked --package towpath-config
	cargo bench --locked --package towpath-server
	@scripts/ensure-engine
	@scripts/ensure-test-parts
	@scripts/ensure-cluster >/dev/null
	cargo build --locked --release --package towpath --package xtask
	@scripts/with-cluster cargo run --quiet --locked --release --package xtask -- bench servers
	@scripts/with-cluster cargo run --quiet --locked --release --package xtask -- bench

clean-demo:
	@cargo xtask clean-demo

clean-cluster:
	@scripts/cluster down
