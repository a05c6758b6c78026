# Two commands matter: `make demo` and `make test`. Both get what they need, say what they do, and can be run again.
.PHONY: help demo test check build bench clean-demo

help:
	@echo "make demo        from push to deployed on this machine, in minutes"
	@echo "make test        every test: crates, the whole journey, the example"
	@echo "make check       formatting and lints"
	@echo "make build       the release: one static binary"
	@echo "make bench       speed, each figure as a ratio to a peer or a floor of the same run"
	@echo "make clean-demo  remove what the demo left: folder, containers, networks, volumes"

# The development profile: its dependencies are optimised, it is what `make test` builds too, and a release build of
# the whole product would take most of a newcomer's patience.
demo:
	@scripts/ensure-engine
	@scripts/ensure-packages git=git cc=gcc
	cargo build --locked --package towpath --package xtask
	@cargo xtask demo

test:
	@scripts/ensure-engine
	@scripts/ensure-test-parts
	cargo fetch --locked --manifest-path examples/claims/Cargo.toml
	cargo test --locked --workspace
	CI=true cargo xtask demo
	cd examples/claims && cargo test --release --locked

check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cd examples/claims && cargo fmt --check
	cd examples/claims && cargo clippy --release --locked --all-targets -- -D warnings

build:
	cargo build --locked --release --package towpath

bench:
	cargo bench --locked --package towpath-config

clean-demo:
	@cargo xtask clean-demo
