# Weir's commands for people who have its source. Each makes sure by itself that what it needs is installed.

.DEFAULT_GOAL := help
.PHONY: help up build test drill bench bench-quick check audit fuzz servers test-servers bench-servers tools fuzz-tools \
	migrate-up migrate-down health logs deploy test-webhook test-profile-integration test-backward-compatibility \
	test-performance test-integration test-all

# Queries are checked against the committed .sqlx. Without this a DATABASE_URL in the environment or in .env would make
# the compiler talk to that database.
export SQLX_OFFLINE := true

CARGO_DENY := 0.20.2
SQLX_CLI := 0.9.0
CARGO_FUZZ := 0.13.2

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-27s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  make up ARGS="--fresh" passes arguments on to `weir up`.'

# The release profile, because what runs here is looked at for its speed. The process that make starts becomes cargo and
# then weir; it is asked to stop when make is gone, however make ended.
up: servers ## Build Weir and start all of it: Redis, PostgreSQL, gateway, workers
	@exec setpriv --pdeathsig TERM cargo run --release --locked --package weir -- up $(ARGS)

build: servers ## Build the release binary, target/release/weir
	cargo build --release --locked --package weir

# First the proof that the drill can turn red, with a build that has faults planted in it; the ordinary build comes last
# and takes its place in target/.
test: test-servers ## Run all tests; they start their own servers
	cargo test --package weir --locked --features planted-faults --test it planted::
	cargo test --workspace --locked --no-fail-fast $(ARGS)

drill: servers ## The long drill: 300 kills under load, and the scoreboard; takes most of an hour
	cargo build --release --locked --package weir
	WEIR_COMMIT="$$(git rev-parse --short HEAD 2>/dev/null)" cargo run --release --locked --package weir-benches -- scoreboard $(ARGS)

bench: bench-servers ## Measure on this machine, beside other systems; takes half an hour and more, writes target/bench/report.html
	cargo run --release --locked --package weir-benches -- all $(ARGS)

bench-quick: bench-servers ## The same with smaller numbers of everything, in some minutes
	cargo run --release --locked --package weir-benches -- all --quick $(ARGS)

# From here to test-all: for a Weir that runs, started by `make up` or named by the settings (.env, weir.toml, WEIR_…).
# docs/ROLLOUT.md uses them.
WEIR := target/release/weir

migrate-up: build ## Bring the schema of the database up to date
	$(WEIR) migrate up $(ARGS)

migrate-down: build ## Undo the last migration, or STEPS=N; YES=1 does not ask
	$(WEIR) migrate down --steps $(or $(STEPS),1) $(if $(YES),--yes) $(ARGS)

health: ## Whether what runs accepts and answers
	@deploy/try.sh health

logs: ## Follow the logs of what runs: of `make up` here, else of the systemd units
	@data=$${WEIR_DATA:-.weir}; \
	if ls "$$data"/log/*.log >/dev/null 2>&1; then exec tail -n 50 -F "$$data"/log/*.log; \
	elif command -v journalctl >/dev/null; then exec journalctl --follow --lines 50 --unit 'weir-*'; \
	else echo "no logs: neither $$data/log nor systemd's journal is here" >&2; exit 1; fi

deploy: build ## Put the present source into service: migrate, then restart without losing a request
	@deploy/deploy.sh $(WEIR)

test-webhook: ## Send MAX events of both formats to what runs and wait for their profiles
	@deploy/try.sh webhook

test-profile-integration: ## From an event to a profile to the name of an employee, in what runs
	@deploy/try.sh profiles

test-backward-compatibility: ## What clients did before there were MAX events and profiles, in what runs
	@deploy/try.sh compatibility

test-performance: build ## COUNT=10000 messages through what runs, none may be lost; and how fast the monitoring answers
	$(WEIR) send --count $(or $(COUNT),10000)
	@deploy/try.sh performance

test-integration: test-servers ## The tests of all parts together, with servers of their own
	cargo test --locked --package weir-api --package weir --test it $(ARGS)

test-all: health test-webhook test-profile-integration test-backward-compatibility test-performance test-integration ## All of the last ones

check: servers tools ## Format, lints, documentation, dependency rules, queries against the schema
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked
	cargo deny --locked --workspace check --hide-inclusion-graph licenses sources
	cargo deny --locked --workspace --exclude-dev check bans
	@.ci/advisories
	.ci/with-postgres sh -c 'cargo sqlx migrate run --source migrations && cargo sqlx prepare --workspace --check -- --package weir-store --locked'

audit: tools ## Compare the dependencies with the newest database of known vulnerabilities (downloads it)
	cargo deny --locked --workspace check advisories

fuzz: servers fuzz-tools ## Fuzz everything that reads foreign bytes; MINUTES=10 for each target, TARGETS="request entry"
	@MINUTES=$(or $(MINUTES),10) fuzz/run $(TARGETS)

servers: ## Install redis-server and PostgreSQL unless they are there
	@deploy/install-servers.sh

test-servers:
	@deploy/install-servers.sh --for-tests

bench-servers:
	@deploy/install-servers.sh --for-bench

# Unoptimised: they run for seconds, and build in half the time.
tools: ## Install what `make check` needs: rustfmt, clippy, cargo-deny, sqlx-cli
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
	@test "$$(cargo deny --version 2>/dev/null)" = 'cargo-deny $(CARGO_DENY)' \
		|| cargo install --debug --locked cargo-deny@$(CARGO_DENY)
	@test "$$(cargo sqlx --version 2>/dev/null)" = 'sqlx-cli-sqlx $(SQLX_CLI)' \
		|| cargo install --debug --locked sqlx-cli@$(SQLX_CLI) --no-default-features --features postgres,rustls

fuzz-tools:
	@test "$$(cargo fuzz --version 2>/dev/null)" = 'cargo-fuzz $(CARGO_FUZZ)' \
		|| cargo install --debug --locked cargo-fuzz@$(CARGO_FUZZ)
