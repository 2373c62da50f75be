# `make run` and `make test` set up what they need: see packaging/setup-venv.

FLAVOUR ?= cpu
CONFIG ?= etc/config.yaml
VENV_PYTHON := .venv/bin/python
READY := .venv/ready-$(FLAVOUR)
# swarmd's cache and those of the libraries it imports: nothing is left outside the checkout.
export XDG_CACHE_HOME := $(CURDIR)/.run/cache
# matplotlib, which comes in through reasoning-gym, would make a folder for settings as well.
export MPLCONFIGDIR := $(CURDIR)/.run/cache/matplotlib

.DEFAULT_GOAL := help

ifeq ($(filter $(FLAVOUR),cpu cuda),)
$(error FLAVOUR=$(FLAVOUR) is unknown: cpu or cuda)
endif

# In a moved or copied checkout the venv still points at the old place: make it anew.
ifneq ($(file < .venv/made-for),$(FLAVOUR) $(CURDIR))
.PHONY: $(READY)
endif

$(READY): requirements/build.lock requirements/$(FLAVOUR).lock setup.cfg pyproject.toml
	@packaging/setup-venv run $(FLAVOUR)

.venv/ready-dev: $(READY) requirements/dev.lock
	@packaging/setup-venv dev

.PHONY: help run test test-unit test-vm system-needs bench lint embedded-model lock deb deb-lint clean

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24
	@echo 'FLAVOUR=cpu (default) or cuda chooses the build of torch.'

run: $(READY) ## train; state is kept in .run, so that the next run goes on (ROUNDS=30 CONFIG=FILE)
	@$(VENV_PYTHON) -m swarmd run --state .run --config $(CONFIG) $(if $(ROUNDS),--rounds $(ROUNDS))

# Only root can make a Debian root directory and boot it: for others these tests skip, and say so. The package comes
# first, because the wheels fetched for it are the ones that .venv is made of.
SYSTEM_NEEDS := $(if $(filter 0,$(shell id -u)),system-needs)

# Two files at a time, but for those that need the machine for themselves (tests/conftest.py); with ARGS='-n 0 ...' one.
PYTEST := $(VENV_PYTHON) -m pytest -n 2

test: $(SYSTEM_NEEDS) .venv/ready-dev ## all tests but test-vm; as root also those of the .deb under systemd, others skip them
	@$(PYTEST) $(ARGS)

# faulthandler_timeout=: a sound test takes longer beside other work than the 900 s of setup.cfg.
test-vm: system-needs .venv/ready-dev ## the .deb in a virtual machine with cgroup v2 (qemu without KVM; as root)
	@packaging/need-debian qemu-system-x86 qemu-utils
	@$(VENV_PYTHON) -m pytest -o faulthandler_timeout=10800 tests/system/vm $(ARGS)

# The package, and what tests/system calls: roots are made (mmdebstrap), booted (systemd-nspawn), or written to a disk.
# And what tests/integration makes networks of: namespaces (ip), NAT (nft).
system-needs:
	@packaging/need-debian mmdebstrap systemd-container e2fsprogs util-linux man-db iproute2 nftables
	@packaging/build-deb

test-unit: .venv/ready-dev ## the fast tests only
	@$(PYTEST) tests/unit $(ARGS)

bench: .venv/ready-dev ## swarmd beside GenRL's own trainer: time, memory, learning
	@$(VENV_PYTHON) -m tests.bench $(ARGS)

lint: .venv/ready-dev ## style, types
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m mypy

embedded-model: $(READY) ## make the model that comes with swarmd anew (ARGS='--seed 1 --out DIR')
	@$(VENV_PYTHON) packaging/embedded-model/make.py $(ARGS)

lock: ## write requirements/*.lock anew from the *.in files (ARGS=--upgrade for newer versions)
	@requirements/update $(ARGS)

deb: ## dist/swarmd.deb (FLAVOUR=cuda: dist/swarmd-cuda.deb; RELEASE=1: smaller, takes minutes)
	@packaging/build-deb --flavour $(FLAVOUR) $(if $(RELEASE),--release)

deb-lint: deb ## lintian on the package: errors and warnings fail (many minutes; OWN=1: without the bundled, seconds)
	@packaging/lint-deb $(if $(OWN),--own )dist/$(if $(filter cuda,$(FLAVOUR)),swarmd-cuda,swarmd).deb

clean: ## remove .venv and caches; .run, which holds the training, stays but for what was fetched and built there
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	rm -rf .run/cache/wheels .run/cache/build-tools .run/cache/bundle .run/cache/system .run/cache/genrl
	find . -path ./.run -prune -o -name __pycache__ -type d -print | xargs -r rm -rf
