# make run    build, start a server, load the flights, end in psql        make test   every test        make bench   the comparisons
# Debian's packages are installed when root; otherwise, and on another system, what is missing is named. Rust itself is never installed (server/decisions/0002).

CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto

.PHONY: run test bench tools-build tools-run tools-test tools-bench lint unit

run: tools-build tools-run
	$(CARGO) build --release -p pgbee-server --bin pgbee
	PGBEE=$${CARGO_TARGET_DIR:-target}/release/pgbee bash server/demo/run.sh

test: tools-build tools-run tools-test lint unit

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# The tests start the server's binary, which `cargo test` alone would not build.
unit:
	$(CARGO) build --workspace --all-targets
	$(CARGO) test --workspace --no-fail-fast

bench: tools-build tools-run tools-test tools-bench
	bash benches/run.sh

# Installs what is missing when root, and otherwise says what to install.
define need
	@missing=""; \
	for pair in $(2); do command -v $${pair%%:*} >/dev/null 2>&1 || missing="$$missing $${pair##*:}"; done; \
	if [ "$(1)" = build ] && [ -z "$$LIBCLANG_PATH" ] && [ -z "$$(ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so* 2>/dev/null)" ]; then missing="$$missing libclang-dev"; fi; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "installing$$missing"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; \
	else echo "please install first:$$missing" >&2; exit 1; fi
endef

tools-build:
	@command -v $(CARGO) >/dev/null 2>&1 || { echo "please install Rust 1.89 or newer first: https://rustup.rs" >&2; exit 1; }
	$(call need,build,c++:g++)

tools-run:
	$(call need,run,psql:postgresql-client xz:xz-utils pv:pv)

# What makes network namespaces with NATs is of use to root alone, and the tests that want it say so where it is missing.
NAMESPACES = $(shell [ "$$(id -u)" = 0 ] && [ "$$(uname)" = Linux ] && command -v apt-get >/dev/null && echo ip:iproute2 iptables:iptables)

tools-test:
	$(call need,test,node:nodejs npm:npm python3:python3 $(NAMESPACES))

# pgbench is in the server's package.
tools-bench:
	$(call need,bench,pgbench:postgresql)
