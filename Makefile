# Everything a person or CI does with this repository. `make help` lists it.
# Each target sets up what is missing on the machine first (tools/setup); a second time that takes no time.

SHELL := /bin/bash
CACHE := $(or $(BATON_TEST_CACHE),$(if $(filter 0,$(shell id -u)),/var/cache/baton-test,$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/baton-test))
ENV := set -euo pipefail; source $(CACHE)/env
# A PostgreSQL that is killed leaves a System V segment until its next start, and the data directories of tests have none: in a
# namespace of their own (root may have one) these end with the tests, and thousands of them on the machine do not end the tests.
APART := $(shell unshare --ipc true 2>/dev/null && echo unshare --ipc --)
SEEDS ?= 200
RUNS ?= 5
INTERRUPTIONS ?= 100
DEMO_ARGS ?=
BENCH_ARGS ?=
TARGET ?= startup
FUZZ_SECONDS ?= 60
N ?= 20
MODE ?= quorum
SEED ?= 1
FAULTS_ARGS ?=
DO ?= capture
FAILOVERS ?= 10
CUT_OFF_SECONDS ?= 600

.PHONY: help setup build deb demo test check tidy units stories sim bench bench-router bench-bgp bench-vip fuzz faults lab golden interruptions cut-off playbooks restores tarball packages

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing for all of the below
	@tools/setup test

build: ## the binary, target/release/baton
	@tools/setup build
	@$(ENV); cargo build --release --locked -p baton-ctl --bin baton

deb: build ## a Debian package of it, in target/deb
	@tools/make-deb target/release/baton target/deb

tarball: ## the program linked statically (musl), with pages and completions, in target/tarball
	@tools/setup tarball
	@$(ENV); MUSL=$$(uname -m)-unknown-linux-musl; CC=musl-gcc cargo build --release --locked --target $$MUSL -p baton-ctl --bin baton; \
		tools/make-tarball target/$$MUSL/release/baton target/tarball

demo: ## a real cluster on this machine, shown until Ctrl-C; DEMO_ARGS=--drive for an unattended run
	@tools/setup demo
	@$(ENV); cargo build --release --locked -p baton-ctl --bin baton
	@$(ENV); exec $(APART) target/release/baton demo $(DEMO_ARGS)

test: setup check units stories ## every check and every test, real clusters included

check: ## formatting, lints, the rules of the house
	@tools/setup build
	@$(ENV); cargo fmt --all --check
	@$(ENV); cargo clippy --workspace --all-targets --locked -- -D warnings
	@$(ENV); cargo test --locked -p baton-tidy

# One set of features for all: what is built for the units is not built again for the stories.
units: ## all tests but the stories
	@tools/setup test
	@$(ENV); exec $(APART) tools/run-tests --skip lab/stories --workspace --locked

stories: ## real PostgreSQL, real etcd, the real binary: NAME=part of a story's name runs those
	@tools/setup test
	@$(ENV); exec $(APART) tools/run-tests --only lab/stories --workspace --locked -- --test-threads=2 $(NAME)

lab: stories

playbooks: ## the playbooks of ansible/ for real, over SSH into network namespaces; needs root
	@tools/setup playbooks
	@$(ENV); cargo build --release --locked -p baton-ctl --bin baton
	@$(ENV); exec $(APART) ansible/tests/run.py target/release/baton

packages: ## the package and the playbooks under a real systemd, in a container: NAME=package or playbooks; needs root
	@tools/setup packages
	@$(ENV); cargo build --release --locked -p baton-ctl --bin baton
	@$(ENV); exec packaging/tests/run target/release/baton $(NAME)

sim: ## SEEDS simulated clusters under faults, against the laws
	@tools/setup build
	@$(ENV); cargo run --release --locked -q -p baton-sim -- --seeds $(SEEDS)

interruptions: ## rewinds and copies interrupted INTERRUPTIONS times at random moments; make test does it eight times
	@tools/setup test
	@$(ENV); BATON_TEST_INTERRUPTIONS=$(INTERRUPTIONS) $(APART) cargo test --locked -p baton-postgres --test interrupted -- --nocapture

cut-off: ## all of etcd away, and a primary cut off from it together with the router, for CUT_OFF_SECONDS; make test does it for moments
	@tools/setup test
	@$(ENV); BATON_TEST_CUT_OFF_SECONDS=$(CUT_OFF_SECONDS) exec $(APART) tools/run-tests --only lab/stories --workspace --locked -- --test-threads=2 \
		the_loss_of_all_etcd_changes_nothing a_primary_that_alone_is_cut_off

bench: ## the table of pauses, RUNS runs of each event; BENCH_ARGS="--mode on|quorum|all" for other synchronous modes
	@tools/setup demo
	@$(ENV); cargo build --release --locked -p baton-ctl --bin baton -p baton-lab --bin baton-bench
	@$(ENV); exec $(APART) target/release/baton-bench --runs $(RUNS) $(BENCH_ARGS)

bench-router: ## the router beside HAProxy: throughput, CPU, memory, changes of the primary; BENCH_ARGS="--pairs 1 --seconds 3 --changes 3" for a short one
	@tools/setup test
	@$(ENV); cargo build --release --locked -p baton-ctl --bin baton -p baton-lab --bin baton-bench-router
	@$(ENV); exec $(APART) target/release/baton-bench-router $(BENCH_ARGS)

bench-bgp: ## how soon BIRD and FRR learn and forget an address; needs root; BENCH_ARGS="--runs 5 --frozen 2" for a short one
	@tools/setup test
	@$(ENV); cargo build --release --locked -p baton-ctl --bin baton -p baton-lab --bin baton-bench-bgp
	@$(ENV); exec $(APART) target/release/baton-bench-bgp $(BENCH_ARGS)

bench-vip: ## addresses and names beside keepalived, vip-manager and dnsmasq; needs root; BENCH_ARGS="--switchovers 3 --deaths 2 --references 1 --silent 0 --pairs 1" for a short one
	@tools/setup addresses
	@$(ENV); cargo build --release --locked -p baton-ctl --bin baton -p baton-lab --bin baton-bench-vip
	@$(ENV); exec $(APART) target/release/baton-bench-vip $(BENCH_ARGS)

fuzz: ## TARGET (startup, tls_hello, proxy_header, messages of the router; dns_question, dns_reply; bgp) for FUZZ_SECONDS; needs a nightly compiler and cargo-fuzz
	@cd fuzz && mkdir -p corpus/$(TARGET) && cargo +nightly fuzz run $(TARGET) corpus/$(TARGET) seeds/$(TARGET) -- -max_total_time=$(FUZZ_SECONDS)

faults: ## N real faults and pairs of them in synchronous MODE under a writing client, drawn from SEED
	@tools/setup demo
	@$(ENV); cargo build --release --locked -p baton-ctl --bin baton -p baton-lab --bin baton-faults
	@$(ENV); exec $(APART) target/release/baton-faults --faults $(N) --mode $(MODE) --seed $(SEED) $(FAULTS_ARGS)

restores: ## a restore to just before and just after each of FAILOVERS failovers, row by row against the writer's log
	@tools/setup test
	@$(ENV); cargo build --release --locked -p baton-ctl --bin baton -p baton-lab --bin baton-restores
	@$(ENV); exec $(APART) target/release/baton-restores --failovers $(FAILOVERS)

golden: ## capture what a real Patroni answers, into crates/lab/golden; DO=compare: what Baton answers, against that
	@tools/setup test
	@$(ENV); cargo build --locked -p baton-ctl --bin baton -p baton-lab --bin baton-golden
	@$(ENV); exec $(APART) target/debug/baton-golden $(DO)
