# Two commands matter: `make demo` and `make test`. Both get what they need, say what they do, and can be run again.
.PHONY: help demo test check build bench clean-demo clean-cluster

help:
	@echo "make demo        from push to deployed on this machine, in minutes (TARGET=kubernetes: on a cluster of its own)"
	@echo "make test        every test: crates, the whole journey, the example"
	@echo "make check       formatting and lints"
	@echo "make build       the release: one static binary"
	@echo "make bench       speed, each figure as a ratio to a peer or a floor of the same run"
	@echo "make clean-cluster  end the test cluster, and remove what it left"
	@echo "make clean-demo  remove what the demo left: folder, containers, networks, volumes"

# The development profile: its dependencies are optimised, it is what `make test` builds too, and a release build of
# the whole product would take most of a newcomer's patience.
# On this machine's engine, or with TARGET=kubernetes on a cluster that is brought up for it.
TARGET ?= local

demo:
	@scripts/ensure-engine
	@scripts/ensure-packages git=git cc=gcc
	@[ $(TARGET) != kubernetes ] || scripts/ensure-cluster >/dev/null
	cargo build --locked --package towpath --package xtask
	@$(if $(filter kubernetes,$(TARGET)),scripts/with-cluster) cargo xtask demo $(TARGET)

test:
	@scripts/ensure-engine
	@scripts/ensure-test-parts
	@scripts/ensure-cluster >/dev/null
	cargo fetch --locked --manifest-path examples/claims/Cargo.toml
	@scripts/with-cluster $(MAKE) --no-print-directory all-tests

# Everything that `test` has prepared for.
.PHONY: all-tests
all-tests:
	cargo test --locked --workspace
	CI=true cargo xtask demo
	CI=true cargo xtask demo kubernetes
	cd examples/claims && cargo test --release --locked

check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo update --locked --workspace --manifest-path fuzz/Cargo.toml
	cd examples/claims && cargo fmt --check
	cd examples/claims && cargo clippy --release --locked --all-targets -- -D warnings

build:
	cargo build --locked --release --package towpath

bench:
	cargo bench --locked --package towpath-config
	@scripts/ensure-cluster >/dev/null
	cargo build --locked --release --package towpath --package xtask
	@scripts/with-cluster cargo run --quiet --locked --release --package xtask -- bench

clean-demo:
	@cargo xtask clean-demo

clean-cluster:
	@scripts/cluster down
