# Build:  make && make install        (PG_CONFIG=... for another server than the first in PATH)
# Tests:  script/test                 (does its own set-up and leaves the system's server alone)
#         make installcheck           (against a running server that has the extension installed)

MODULE_big = rillflow
OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c))
EXTENSION = rillflow
DATA = rillflow--1.0.sql
PGFILEDESC = "rillflow - event store with hot and cold tiers"
EXTRA_CLEAN = build

# Wait points, at which tests stop a backend, are no part of what users run.
ifdef TEST_BUILD
PG_CPPFLAGS += -DRF_TEST_BUILD
endif

# `install` makes the store on which the others stand; what is not named here runs after these, by name.
REGRESS_ORDER = install
ALL_REGRESS := $(sort $(patsubst sql/%.sql,%,$(wildcard sql/*.sql)))
REGRESS := $(strip $(filter $(ALL_REGRESS),$(REGRESS_ORDER)) $(filter-out $(REGRESS_ORDER),$(ALL_REGRESS)))
# pg_regress asks for another time zone in each major version; the expected output is in one.
LAUNCHER = --launcher='env PGTZ=UTC PGDATESTYLE=ISO'
REGRESS_OPTS = --inputdir=. $(LAUNCHER)

ISOLATION := $(sort $(patsubst test/specs/%.spec,%,$(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test $(LAUNCHER)

PROVE_TESTS := $(sort $(wildcard test/t/*.pl))
TAP_TESTS := $(if $(PROVE_TESTS),1)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# From 16 on expected files are looked up apart from the input, first of all in the current directory.
ifeq ($(filter 15,$(MAJORVERSION)),)
ISOLATION_OPTS += --expecteddir=test
endif

# PGXS empties this variable, so it is set after it; `override` adds to one that the command line gives, too.
override PROVE_FLAGS += -I $(CURDIR)/test/perl

$(OBJS): $(wildcard src/*.h) $(firstword $(MAKEFILE_LIST))

CLANG_FORMAT ?= clang-format-14

.PHONY: format
format:
	$(CLANG_FORMAT) -i $(wildcard src/*.c src/*.h)

# For scripts that want to know a list from above: make -s print-REGRESS
print-%:
	@echo '$($*)'
