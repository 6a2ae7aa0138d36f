# `make help` lists the targets. Everything builds into CARGO_TARGET_DIR where that is set, else into ./target.

SHELL := /bin/bash
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/leeway
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
PYTHON := $(CACHE)/python/bin/python
FLOWS := $(CACHE)/flows
UI := ui/dist/index.html
DEPLOY := $(CACHE)/deploy
PEERS := $(CACHE)/peers
STREAMS := benches/peers/kafka-streams
LEEWAY_BIN ?= $(TARGET)/debug/leeway

# RocksDB and librdkafka take minutes: compiled once, and kept by ccache where that is installed. Always the same words, since Cargo rebuilds
# when they change.
ifneq ($(shell command -v ccache),)
export CC := ccache cc
export CXX := ccache c++
export CCACHE_NOHASHDIR := 1
endif

.PHONY: help demo test check lint purity unit ui ui-test screenshots ui-if-node broker flows rules observability dashboards sql doc deny compose instructions bench bench-scale bench-parts bench-recovery bench-segments bench-alert bench-dashboard calibrate simulate mutations chaos fuzz

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ui-if-node ## The whole system in one process: drift on a synthetic stream, no Kafka needed
	@scripts/prerequisites demo
	@if [ -x "$(TARGET)/debug/leeway" ] || [ -d "$(TARGET)/debug/.fingerprint" ]; then echo "building with what is already built"; \
	  else echo "building without RocksDB: about 5 minutes on 2 cores"; fi
	cargo run --quiet --no-default-features -- demo --duration 60s

test: ## Everything, against a real Kafka that it starts itself
	@scripts/prerequisites test
	@scripts/step "format" cargo fmt --all --check
	@scripts/step "page of the dashboard" $(MAKE) --no-print-directory ui
	@scripts/step "purity of topology/" scripts/purity
	@scripts/step "clippy (builds RocksDB first: tens of CPU minutes)" cargo clippy --workspace --all-targets --features leeway/mutations -- -D warnings
	@scripts/step "unit, property, golden and simulation tests" cargo test --workspace --exclude leeway-fuzz --lib --bins --test it --test simulation --test golden --test oracle --test conformance --test calibration
	@scripts/step "the page in a real browser" $(MAKE) --no-print-directory ui-test
	@scripts/step "deliberate bugs, each to be found" $(MAKE) --no-print-directory mutations
	@scripts/step "fuzzing, a minute" $(MAKE) --no-print-directory fuzz
	@scripts/step "tests on a real Kafka" $(MAKE) --no-print-directory broker
	@scripts/step "Prefect flows, on Prefect's own server" $(MAKE) --no-print-directory flows
	@scripts/step "rules for Prometheus and Alertmanager" $(MAKE) --no-print-directory rules
	@scripts/step "Prometheus, Alertmanager, Grafana, Kafka's tools, Python clients" $(MAKE) --no-print-directory observability
	@scripts/step "instructions that a record costs" $(MAKE) --no-print-directory instructions
	@scripts/step "documentation" $(MAKE) --no-print-directory doc
	@scripts/step "dependencies" $(MAKE) --no-print-directory deny
	@scripts/step "compose file" $(MAKE) --no-print-directory compose

check: lint purity unit ## What is quick: format, clippy, purity, unit tests

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

purity: ## Prove that topology/ has no input or output
	scripts/purity

unit: ## Tests without a broker
	cargo test --workspace --exclude leeway-fuzz --lib --bins --test it --test simulation --test golden --test oracle --test conformance --test calibration

ui: $(UI) ## The page of the dashboard, which the next build of the binary embeds (Node.js, else one from PyPI)

# Its tests drive the real server by Chromium; the same binary as the other tests without a broker.
ui-test: $(UI) ## The page in a real browser: what it does, accessibility, limits (2 minutes when built)
	PATH="$$(scripts/node --install):$$PATH" cargo test --quiet --test it -- --ignored --exact --nocapture browser::the_page_does_what_it_says_in_a_real_browser

screenshots: $(UI) ## The pictures in README.md; ALL=folder for every view, light and dark, desktop and phone
	PATH="$$(scripts/node --install):$$PATH" ALL="$(abspath $(ALL))" cargo test --quiet --test it -- --ignored --exact browser::the_pictures_of_the_page_are_taken

# A binary without the page says how to build it; the demo does without rather than fail.
ui-if-node:
	@if scripts/node > /dev/null; then $(MAKE) --no-print-directory ui || echo "the dashboard's page could not be built: its address will say how"; \
	  else echo "no Node.js 20.19 or later: the dashboard's address will say how its page is built"; fi

ui/node_modules/.package-lock.json: ui/package.json ui/package-lock.json ui/.npmrc
	cd ui && PATH="$$(../scripts/node --install):$$PATH" npm ci --no-progress
	@touch $@

$(UI): ui/node_modules/.package-lock.json ui/index.html ui/vite.config.ts ui/tsconfig.json $(shell find ui/src -type f)
	cd ui && PATH="$$(../scripts/node --install):$$PATH" npm run --silent build
	@touch $@

$(PYTHON): tests/oracle/requirements.txt
	python3 -m venv $(CACHE)/python
	$(PYTHON) -m pip install --quiet --requirement tests/oracle/requirements.txt
	@touch $@

broker: $(PYTHON) ## Tests on a real Kafka
	LEEWAY_TEST_PYTHON=$(PYTHON) cargo test --test broker -- --test-threads 1

# Without dependencies: the lock has all of them, and pip, when it looks for one with an extra, takes the newest and then misses its hash.
$(FLOWS)/installed: flows/requirements.lock
	python3 -m venv --clear $(FLOWS)
	$(FLOWS)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-deps --require-hashes --requirement flows/requirements.lock
	$(FLOWS)/bin/python -m pip check
	@touch $@

flows: $(FLOWS)/installed ## The Prefect flows: format, lint, types, and tests with LEEWAY_BIN (2 minutes, and as many to install Prefect)
	@$(if $(filter file,$(origin LEEWAY_BIN)),[ -x "$(LEEWAY_BIN)" ] || cargo build --quiet)
	cd flows && $(FLOWS)/bin/ruff format --check --quiet . && $(FLOWS)/bin/ruff check --quiet . && $(FLOWS)/bin/mypy .
	cd flows && LEEWAY_BIN="$(abspath $(LEEWAY_BIN))" $(FLOWS)/bin/python -m pytest --quiet

rules: ## The alerting and recording rules, by Prometheus' own promtool
	@promtool=$$(scripts/unpacked prometheus promtool) && cd deploy/prometheus && $$promtool check config --syntax-only prometheus.yml && \
	  $$promtool check rules --lint-fatal recording.yml alerts.yml && $$promtool test rules tests/*.yml
	@$$(scripts/unpacked prometheus-alertmanager amtool) check-config deploy/prometheus/alertmanager.yml

$(DEPLOY)/installed: deploy/tests/requirements.txt examples/python/requirements.txt
	python3 -m venv --clear $(DEPLOY)
	$(DEPLOY)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --requirement deploy/tests/requirements.txt
	@touch $@

# With the page, which the binary under test has to have embedded and a browser opens.
observability: $(DEPLOY)/installed $(UI) ## Prometheus, Alertmanager, Grafana's queries, Kafka's tools, Python clients and the page around LEEWAY_BIN, on a real Kafka (2 minutes)
	@$(if $(filter file,$(origin LEEWAY_BIN)),[ -x "$(LEEWAY_BIN)" ] || cargo build --quiet)
	cd deploy/tests && $(DEPLOY)/bin/ruff format --check --quiet . ../grafana ../../examples/python ../../benches/peers && $(DEPLOY)/bin/ruff check --quiet . ../grafana ../../examples/python ../../benches/peers
	cd deploy/tests && PATH="$$(../../scripts/node --install):$$PATH" LEEWAY_BIN="$(abspath $(LEEWAY_BIN))" $(DEPLOY)/bin/python -m pytest --quiet -m "not sql"

doc: ## The API's documentation, without warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

deny: ## Licences, sources and banned crates
	scripts/deny

simulate: ## Whole runs from one seed each: make simulate SEED=first SEEDS=how-many
	LEEWAY_SEED=$(or $(SEED),1) LEEWAY_SEEDS=$(or $(SEEDS),1000) cargo test --quiet --test simulation -- --nocapture

mutations: ## Break rules of exactly-once on purpose, one at a time: the simulation has to find each (about 1 minute when built)
	cargo test --quiet --features mutations --test simulation every_deliberate_bug_is_found -- --nocapture

fuzz: ## Feed what Leeway reads from others with anything: make fuzz SECONDS=for-each (5 minutes to build)
	scripts/fuzz $(or $(SECONDS),15)

# Without ARGS everything is measured, and written into docs/benchmarks.md.
bench: $(PEERS)/installed $(STREAMS)/target/libs ## Throughput and latency beside bare consumers, Kafka Streams and Python: make bench ARGS=--help (release build; three quarters of an hour and 5 GB of disk when built)
	@$(if $(filter file,$(origin LEEWAY_BIN)),cargo build --quiet --release)
	@cargo build --quiet --release --package leeway-floor
	$(PEERS)/bin/python benches/peers/bench.py $(or $(ARGS),--write)

bench-scale: $(PEERS)/installed ## What a record costs as features, partitions, windows, records, segments and instances grow: make bench-scale ARGS=--help (release build; three quarters of an hour and 10 GB of disk when built)
	@$(if $(filter file,$(origin LEEWAY_BIN)),cargo build --quiet --release)
	@cargo build --quiet --release --package leeway-floor
	$(PEERS)/bin/python benches/peers/scale.py $(or $(ARGS),--write)

$(PEERS)/installed: benches/peers/requirements.txt
	python3 -m venv --clear $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: --requirement benches/peers/requirements.txt
	@touch $@

$(STREAMS)/target/libs: $(STREAMS)/pom.xml $(wildcard $(STREAMS)/src/main/java/leeway/peers/*.java)
	mvn -q -B -f $(STREAMS)/pom.xml compile
	@touch $@

instructions: ## Instructions that a record costs, by valgrind, compared with those recorded (release build of topology/; 1 minute)
	scripts/instructions

bench-parts: ## Parts by themselves: decode, process, check; commit, restore and open a task on RocksDB (criterion; release build, then 5 minutes)
	cargo bench --package leeway-micro-benches
	cargo bench --package leeway --bench state

bench-recovery: ## Time to the first event after a kill, with 1 GB of state (release build; counts alone are about 5 GB of memory)
	cargo bench --bench recovery

bench-segments: ## A million segments on one instance: throughput, memory, restart, eleven restores, their changelog entries/s beside a bare read (release build)
	cargo bench --bench segments

bench-alert: ## A million events behind: how long does `leeway alert` take, and how much memory (build of the tests; 2 minutes)
	cargo test --test broker -- --nocapture --ignored --exact alert::a_million_events

bench-dashboard: ## A million drift events in the topic: how soon the dashboard has read them, and in how much memory (release build)
	cargo bench --bench dashboard

calibrate: ## False alarms and power of checks, measured by simulation: make calibrate SEED=which CHECKS=how-many (release build; about 11 minutes)
	cargo run --quiet --release --package leeway-topology --example calibrate -- $(or $(SEED),1) $(or $(CHECKS),4000)

compose: $(DEPLOY)/installed ## Validate docker-compose.yml with the real Compose parser, and the Dockerfile with hadolint
	scripts/validate-compose
	$(DEPLOY)/bin/hadolint deploy/Dockerfile

sql: $(DEPLOY)/installed ## The questions of deploy/sql on a real Flink (130 MB from Maven Central, once) and a real Kafka
	@$(if $(filter file,$(origin LEEWAY_BIN)),[ -x "$(LEEWAY_BIN)" ] || cargo build --quiet)
	cd deploy/tests && LEEWAY_BIN="$(abspath $(LEEWAY_BIN))" $(DEPLOY)/bin/python -m pytest --quiet -m sql

dashboards: $(DEPLOY)/installed ## Make Grafana's dashboards anew from deploy/grafana/generate.py
	$(DEPLOY)/bin/python deploy/grafana/generate.py

chaos: $(PYTHON) ## Three brokers, up to five instances, everything dies: make chaos MINUTES=how-long SEED=which GROUP=classic|static|consumer
	LEEWAY_TEST_PYTHON=$(PYTHON) LEEWAY_CHAOS_MINUTES=$(or $(MINUTES),60) LEEWAY_CHAOS_SEED=$(or $(SEED),1) LEEWAY_CHAOS_RATE=$(RATE) LEEWAY_CHAOS_GROUP=$(GROUP) \
	  cargo test --test broker -- --test-threads 1 --nocapture --exact chaos::whatever_dies_nothing_is_lost_doubled_or_wrong
