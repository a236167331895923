# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# `make help` lists all targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The Python of the main row of scripts/matrix, if it is installed.
PYTHON ?= $(shell scripts/python 3.13 || echo python3)
# One worker more than cores, because tests also wait. Tests of one file share fixtures, so one worker runs the whole file.
# The order of the folders starts with the longest tests, so that all workers finish at about the same time.
PYTEST_FLAGS ?= -n $(shell echo $$(($$(nproc) + 1))) --dist loadfile --no-loadscope-reorder

export VENV := $(CURDIR)/.venv
# The tests must not use an ansible.cfg or collections of the user.
export ANSIBLE_COLLECTIONS_PATH := $(VENV)/collections
export PATH := $(VENV)/bin:$(PATH)

# Settings of `make proof` only, also if they are set in the environment.
unexport PROOF SEQUENCES SEED

# Everything, and only what the demo needs.
SETUP := $(VENV)/setup.stamp
DEMO := $(VENV)/demo.stamp
# Only the tests of the two web pages and of the docs site need Chromium.
BROWSER := $(if $(WITHOUT_BROWSER),,$(VENV)/browser.stamp)

.PHONY: help
help:  ## list all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: $(SETUP)  ## create a virtual environment in .venv with all requirements of the other targets

$(SETUP): requirements.txt requirements-dev.txt $(wildcard tests/*/requirements.txt) \
		sandbox/pyproject.toml scripts/venv
	scripts/venv "$(PYTHON)" "$(VENV)" -r requirements-dev.txt
	touch $@ $(DEMO)

$(DEMO): requirements.txt sandbox/pyproject.toml scripts/venv
	scripts/venv "$(PYTHON)" "$(VENV)" -r requirements.txt ansible-core
	touch $@

# If Chromium is missing and cannot be installed, only the tests that need Chromium fail.
$(VENV)/browser.stamp: scripts/browser $(SETUP)
	scripts/browser && touch $@ || true

.PHONY: demo
demo: $(DEMO)  ## run the collection against the sandbox
	python demo/run.py

.PHONY: picture
picture: $(DEMO)  ## record docs/images/demo.svg, the animated picture of README.md, in the sandbox
	python scripts/picture.py docs/images/demo.svg

.PHONY: lint
lint: $(SETUP)  ## style, types, YAML, documentation, changelog, workflows, shell scripts
	ruff check .
	mypy
	yamllint --strict .
	ansible-lint --offline
	@# A second time if it fails: it takes the path of its temporary folder, a random name, for a link if that ends with _.
	docs() { antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=all \
		--disallow-unknown-collection-refs .; }; docs || docs
	antsibull-changelog lint
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	zizmor --offline --quiet .github
	shellcheck $$(git grep -lE "^#!.*bash")

.PHONY: sanity
sanity: $(SETUP)  ## ansible-test sanity
	scripts/sanity

.PHONY: galaxy
galaxy: $(SETUP)  ## build the collection and run Galaxy's importer on it
	scripts/galaxy

.PHONY: release
release: $(SETUP)  ## build a release tarball, import it, install it in a clean environment and run the quick start
	scripts/release

.PHONY: publish
publish: $(SETUP)  ## publish the tarball of `make release` on GitHub and on Galaxy; a workflow runs this target
	scripts/publish

.PHONY: docs pages
docs: $(SETUP) $(BROWSER)  ## the docs site in site/; a warning, a broken link or an inaccessible page is an error
	scripts/docs "$(CURDIR)/site"
	pytest tests/docsite

pages: docs  ## add the docs site to pages/, which has the sites of all versions; a workflow publishes the folder
	scripts/pages "$(CURDIR)/site" "$(CURDIR)/pages"

.PHONY: unit sandbox-test integration molecule
unit: tests = tests/unit
unit: $(SETUP) $(BROWSER)  ## unit tests
sandbox-test: tests = tests/sandbox
sandbox-test: $(SETUP) $(BROWSER)  ## the sandbox against Azure's own SDK
integration: tests = tests/integration
integration: $(SETUP)  ## modules, roles and playbooks against the sandbox
molecule: tests = tests/molecule
molecule: $(SETUP)  ## the molecule scenarios against the sandbox
unit sandbox-test integration molecule:
	pytest $(PYTEST_FLAGS) -m "" $(tests)

# sanity takes longest, so it begins first.
.PHONY: test
test: $(SETUP)  ## all targets above without slow tests, the fast ones first; each change must pass
	$(MAKE) --no-print-directory --jobs=$(shell nproc) --output-sync sanity lint galaxy docs $(BROWSER)
	pytest $(PYTEST_FLAGS)

.PHONY: slow
slow: docs  ## the tests and cases that `make test` leaves out because they are slow
	pytest $(PYTEST_FLAGS) -m slow
	pytest $(PYTEST_FLAGS) --dist load -m slow tests/docsite

.PHONY: foreign
foreign: $(SETUP)  ## the Azure CLI and azure.azcollection against the sandbox; the playbook awx with awx.awx
	scripts/foreign $(PYTEST_FLAGS)

.PHONY: events demo-events
events: $(SETUP)  ## the rulebook in ansible-rulebook, with events of the sandbox
	scripts/rulebook-venv
	RULEBOOK="$(VENV)/rulebook" pytest $(PYTEST_FLAGS) tests/events

demo-events: $(SETUP)  ## rotate a key in the sandbox, and let an event move the account
	scripts/rulebook-venv
	RULEBOOK="$(VENV)/rulebook" python demo/events.py

# BENCH is one of them, or several; FRACTION=0.1 a trial of a tenth of the size, which is printed only.
.PHONY: bench
bench: $(SETUP)  ## benchmarks, compared with the Azure CLI and azure.azcollection; writes docs/developers/benchmarks.md
	scripts/foreign-clients
	PYTHONPATH=tests/sandbox:tests/integration:tests/foreign \
		python tests/benchmarks --clients "$(VENV)/foreign" --fraction $(or $(FRACTION),1) $(BENCH)

# CLASS is short (two and a half hours), hours or days. YES=1 does not ask, DRY_RUN=1 prints the requests only. ARGS are further options, see docs/developers/live.md.
.PHONY: live live-test live-clean
live: $(SETUP)  ## experiments with a real Azure subscription, which measure what is not documented
	PYTHONPATH=tests python -m live run --class $(or $(CLASS),short) $(if $(YES),--yes) $(if $(DRY_RUN),--dry-run) $(ARGS)

# If the delays of reads and roles were not measured, each test would wait for the longest that is plausible.
live-test: $(SETUP)  ## the integration tests with the mark on_azure, with a real Azure subscription
	PYTHONPATH=tests python -m live run --again --only value_lag --only role_delay --only 'job_*' \
		$(if $(YES),--yes) $(if $(DRY_RUN),--dry-run) $(ARGS)

live-clean: $(SETUP)  ## delete what `make live` has created
	PYTHONPATH=tests python -m live clean $(if $(YES),--yes) $(ARGS)

# These tests start a process for each task, or ansible-playbook for each run of a role. One worker runs all tests of a
# file, because some tests compare the two ways.
WAYS := $(addprefix tests/integration/test_,audit_remedies.py bad_input.py credentials.py many_hosts.py role_variables.py \
	roles_drill.py roles_provision.py roles_recover.py roles_revert.py roles_rotate.py roles_switch.py steps_of_keys.py \
	steps_of_resources.py versions_of_a_run.py)

.PHONY: ways
ways: $(SETUP)  ## tests of modules in the process of Ansible and as separate processes; tests of roles with ansible-playbook
	PROOF=all pytest $(PYTEST_FLAGS) -m "" $(WAYS)

# Long tests run first. An idle worker takes tests from the other workers.
PROOFS := $(addprefix tests/integration/test_,simulator.py recover_combinations.py rights.py check_mode.py kill.py nights.py)

# SEED of an earlier run repeats its sequences.
.PHONY: proof
proof: $(SETUP)  ## full reliability suite: 4,000 random sequences of runs, faults and changes by other tools (half an hour)
	export PROOF=all SEQUENCES=$(or $(SEQUENCES),4000) SEED=$(or $(SEED),$$RANDOM); echo "SEED=$$SEED"; \
	pytest $(PYTEST_FLAGS) --dist worksteal -m "" $(PROOFS)

# ROW is one row, such as core-2.22.
.PHONY: matrix
matrix: $(SETUP) $(BROWSER)  ## tests with the oldest SDKs, and with other releases of ansible-core and Python
	scripts/matrix $(PYTEST_FLAGS)

.PHONY: test-all
test-all: test slow foreign events ways proof matrix  ## all of the tests above

.PHONY: clean
clean:  ## remove the files that the other targets created
	rm -rf .venv .ansible .hypothesis .mypy_cache .pytest_cache .ruff_cache pages site
