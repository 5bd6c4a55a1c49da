# SPDX-License-Identifier: GPL-2.0-only
#
# The build of nolock. This comment is its documentation; `make help` prints it.
#
#   make              build everything into build/; needs no root
#   make deps         as root: install the Debian packages that are missing (list: packages)
#   make run          the demonstration; RUN_SECONDS=N (10). Installs what is missing if root
#   make check        every test there is, with a total at the end. Installs what is missing if root
#   make test         the test suites alone, without sanitizers, compilers and lint; T=WORD runs
#                     those with WORD in their name, V=1 shows all that they print
#   make torture      selftests/torture at full length; TORTURE_SECONDS=N (3600)
#   make asan         the suites with AddressSanitizer      (build/asan)
#   make ubsan        the suites with UBSan                 (build/ubsan)
#   make tsan         selftests/tsan with ThreadSanitizer   (build/tsan)
#   make fuzz         what nolockd reads, by libFuzzer (build/fuzz); FUZZ_SECONDS=N (60) in all
#   make check-compilers   all C once more, warnings being errors: gcc, clang, lib/ for aarch64
#   make check-tiny   the suites of the library, and short parts of the torture, of a build for small
#                     machines (build/tiny)
#   make check-nodes       suites of the library on two nodes (NOLOCK_FAKE_NODES=2)
#   make check-kernels     the suites that touch BPF on the kernels of later Debians, in QEMU: the
#                     newest kernel of each suite in KERNELS (trixie sid), and some suites once more
#                     with its libbpf. KERNEL_TESTS="bpf/test_X ..." runs those
#   make check-programs    real programs under the drop-in malloc and under glibc's: do they print the
#                     same, how long do they take; PROGRAMS="perl git" runs those
#   make bench        the benchmarks, in a quarter of an hour: build/bench.json, build/bench/*.svg.
#                     B=NAME,... only those rows (build/bench/bench --list), BENCH_SECONDS=N (600)
#                     for all of them, PROFILE=1 with perf's software clock. Other allocators come
#                     from Debian's packages, or, unpacked in build/peers, from a later Debian's
#   make performance  the same run of all rows, then its tables and plots into docs/performance.md.
#                     scripts/performance does the latter alone, with those of the last run of all
#   make fast-path    write docs/fast-path.md again: the fast paths' instructions, and their count
#   make lint         clang-format, clang-tidy, and the rules of scripts/lint
#   make format       let clang-format rewrite the sources
#   make vmlinux.h    write vmlinux.h again, from the running kernel's BTF or BTF=FILE
#   make install      DESTDIR= prefix=/usr/local libdir= includedir= bindir= sbindir= docdir=
#   make clean        remove build/
#
# Variables: CC (gcc), CLANG (clang-19: BPF), CFLAGS (-O2 -g), LDFLAGS, WERROR=1, V=1 (show the
# commands), SAN=address|undefined|address,undefined|thread, BUILD=DIR (build), TINY=1 (for small
# machines: no barns, smallest tables; in build/tiny). Another compiler or sanitizer belongs into
# another BUILD; within one, a change of flags builds again what it concerns.
#
# Order: vmlinux.h (committed) -> BPF objects -> their skeletons -> user side -> tests.
#   lib/*.c                  libnolock.a and libnolock.so, one set of objects
#   lib/malloc/*.c           libnolock-malloc.so, the drop-in malloc, with those objects inside. Not
#                            built with a sanitizer, which brings a malloc of its own
#   bpf/nolock.bpf.c         libnolock.bpf.o, the allocator for BPF programs to link
#   bpf/nolock_grow.bpf.c    libnolock-grow.bpf.o, for those among them that grow heaps
#   D/X.bpf.c                $(BUILD)/D/X.bpf.o and X.skel.h (struct X_bpf), for D = bpf, demo,
#                            bench, bpf/examples, selftests/*. What includes nolock.bpf.h gets
#                            libnolock.bpf.o, what names nolock_bpf_grow libnolock-grow.bpf.o too
#   user/*.c                 nolockd and nolock, and libuser.a of all others
#   selftests/D/test_*.c     a libcriterion suite each (with a main() of its own: a plain program)
#   selftests/D/prog_*.c     a program each, for suites to run
#   D/*.c                    for D = demo, bench, bench/load, bpf/examples, selftests/tsan: a program
#                            each that has a main(). The other .c files of a directory are linked
#                            to each of its programs. bench/bench measures in processes of
#                            bench/load/load
#   selftests/fuzz/fuzz_*.c  a target of libFuzzer each
#   selftests/*/test_*.sh    shell tests

VERSION := 0.1.0
SOVERSION := 0

BUILD ?= $(if $(filter 1,$(TINY)),build/tiny,build)
# Where the BPF objects are: another compiler's build may share them.
BPFOUT ?= $(BUILD)
ifeq ($(origin CC),default)
CC := gcc
endif
AR ?= ar
CLANG ?= clang-19
CLANG_FORMAT ?= clang-format
CLANG_TIDY ?= clang-tidy
BPFTOOL ?= $(shell PATH="$$PATH:/usr/sbin:/sbin" command -v bpftool || echo bpftool)
CXX_FOR_TESTS ?= g++
CC_ARM64 ?= aarch64-linux-gnu-gcc

CFLAGS ?= -O2 -g
WARN := -Wall -Wextra $(if $(filter 1,$(WERROR)),-Werror)
SAN ?=
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer)
ifneq ($(findstring undefined,$(SAN)),)
SANFLAGS += -fno-sanitize-recover=undefined
endif
ifeq ($(SAN),thread)
# TSan has no fences; the paths that it runs use none.
SANFLAGS += $(if $(findstring clang,$(CC)),,-Wno-tsan)
endif

SIZE := $(if $(filter 1,$(TINY)),-DNOLOCK_TINY)
COMMON := -std=gnu11 $(CFLAGS) $(WARN) $(SANFLAGS) $(SIZE) -fno-strict-aliasing
LIB_CFLAGS := $(COMMON) -fPIC -fno-plt -ftls-model=initial-exec -fvisibility=hidden \
	      -DNOLOCK_VERSION='"$(VERSION)"' -Ilib/include -Ilib
USER_CFLAGS := $(COMMON) -DNOLOCK_VERSION='"$(VERSION)"' -Ilib/include -Ilib -Ibpf -Iuser \
	       -isystem $(BPFOUT)/bpf
BPF_ARCH := $(patsubst x86_64,x86,$(patsubst aarch64,arm64,$(shell uname -m)))
# The headers of <asm/...> are in a directory of the machine's name, which -target bpf forgets.
BPF_CFLAGS := -target bpf -mcpu=v4 -std=gnu11 -O2 -g $(WARN) -Wno-unused-parameter \
	      -Wno-missing-declarations $(SIZE) -D__TARGET_ARCH_$(BPF_ARCH) -I. -Ibpf -Ilib -Ilib/include \
	      -idirafter /usr/include/$(shell uname -m)-linux-gnu
BPF_LIBS := -lbpf -lelf -lz
USER_LIBS := -ljson-c -lcap-ng $(BPF_LIBS) -lpthread

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules

# V=1 shows the commands themselves, -s nothing.
Q := $(if $(V),,@)
say = $(if $(V)$(findstring s,$(firstword -$(MAKEFLAGS))),,@printf '  %-8s %s\n' '$(1)' '$(patsubst $(BUILD)/%,%,$(2))')
# Without -j of our own maker, sub-makes use all CPUs.
JOBS = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))

# --- what there is ---

LIB_SRCS := $(sort $(wildcard lib/*.c))
LIB_OBJS := $(LIB_SRCS:%.c=$(BUILD)/%.o)
USER_MAINS := user/nolockd.c user/nolock.c
USER_SRCS := $(filter-out $(USER_MAINS) %.bpf.c,$(sort $(wildcard user/*.c)))
USER_BINS := $(USER_MAINS:%.c=$(BUILD)/%)
LIBNOLOCK := $(BUILD)/lib/libnolock.a
LIBUSER := $(BUILD)/user/libuser.a
SONAME := libnolock.so.$(SOVERSION)
SOFILE := libnolock.so.$(VERSION)
SHARED := $(BUILD)/lib/$(SOFILE)
MALLOC_SRCS := $(sort $(wildcard lib/malloc/*.c))
MALLOC_OBJS := $(MALLOC_SRCS:%.c=$(BUILD)/%.o)
MALLOC := $(if $(SAN),,$(BUILD)/lib/libnolock-malloc.so)

# Programs of these directories see the skeletons and link libuser.a; those of the library's own
# tests do not.
BPF_DIRS := demo bench bpf/examples $(filter-out $(addprefix selftests/,lib malloc tsan torture),\
	    $(wildcard selftests/*))
PROG_DIRS := demo bench bench/load bpf/examples $(filter-out $(if $(SAN),selftests/malloc),\
	     $(wildcard selftests/*))

BPF_LIB := $(BPFOUT)/bpf/libnolock.bpf.o
BPF_GROW := $(BPFOUT)/bpf/libnolock-grow.bpf.o
BPF_SRCS := $(filter-out bpf/nolock.bpf.c bpf/nolock_grow.bpf.c,$(sort $(wildcard bpf/*.bpf.c)) \
	    $(foreach d,$(BPF_DIRS),$(sort $(wildcard $(d)/*.bpf.c))))
# Those that call the allocator are linked with it.
BPF_CALLERS := $(shell grep -lE '^\#include [<"](nolock/)?nolock\.bpf\.h[>"]' $(BPF_SRCS))
BPF_GROWERS := $(shell grep -lw nolock_bpf_grow $(BPF_CALLERS))
BPF_OBJS := $(BPF_SRCS:%.bpf.c=$(BPFOUT)/%.bpf.o)
SKELS := $(BPF_OBJS:.bpf.o=.skel.h)

# Sources of other directories that a directory's programs are linked with, too.
selftests/torture_SHARES := selftests/lib/common.c selftests/lib/plain.c user/temp.c
selftests/malloc_SHARES := selftests/lib/plain.c
selftests/user_SHARES := selftests/torture/steps.c
# What libnolock's header puts in line refers to it, and it is preloaded, or not there.
bench/load_LDFLAGS := -Wl,-z,dynamic-undefined-weak
selftests/tsan_SHARES := selftests/torture/shared.c

# --- one directory of programs: $(call PROG_RULES,DIR) ---

have_main = $(if $(1),$(shell grep -lE '^(int )?main\>' $(1)))
define PROG_RULES
$(1)_ALL := $$(filter-out %.bpf.c,$$(sort $$(wildcard $(1)/*.c)))
$(1)_MAINS := $$(call have_main,$$(if $$(filter $(1),demo bench bench/load bpf/examples selftests/tsan),\
	    $$($(1)_ALL),$$(filter $(1)/test_% $(1)/prog_%,$$($(1)_ALL))))
$(1)_SUITES := $$(filter-out $$($(1)_MAINS),$$(filter $(1)/test_%,$$($(1)_ALL)))
$(1)_HELPERS := $$(patsubst %.c,$$(BUILD)/%.o,\
		$$(filter-out $$($(1)_MAINS) $$($(1)_SUITES),$$($(1)_ALL)) $$($(1)_SHARES))
$(1)_BINS := $$(patsubst %.c,$$(BUILD)/%,$$($(1)_MAINS) $$($(1)_SUITES))
$(1)_INCLUDES := -I$(1) -isystem $$(BPFOUT)/$(1)

$$(BUILD)/$(1)/%.o: $(1)/%.c $$(BUILD)/.flags | $$(if $$(filter $(1),$$(BPF_DIRS)),$$(SKELS))
	$$(call say,CC,$$@)
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(CC) $$(USER_CFLAGS) $$($(1)_INCLUDES) -MD -MP -c -o $$@ $$<

$$($(1)_SUITES:%.c=$$(BUILD)/%): CRITERION := -lcriterion
$$($(1)_BINS): $$(BUILD)/%: $$(BUILD)/%.o $$($(1)_HELPERS) \
		$$(if $$(filter $(1),$$(BPF_DIRS)),$$(LIBUSER)) $$(LIBNOLOCK)
	$$(call say,LINK,$$@)
	$$(Q)$$(CC) $$(SANFLAGS) $$(LDFLAGS) $$($(1)_LDFLAGS) -o $$@ $$^ $$(CRITERION) \
		$$(if $$(filter $(1),$$(BPF_DIRS)),$$(USER_LIBS)) -lpthread -ldl -lm

DEPS += $$(patsubst %.c,$$(BUILD)/%.d,$$($(1)_ALL))
endef
$(foreach d,$(PROG_DIRS),$(eval $(call PROG_RULES,$(d))))
$(BUILD)/selftests/lib/test_liburcu: CRITERION := -lcriterion -lurcu-memb

DEMO_BINS := $(demo_BINS)
BENCH_BINS := $(bench_BINS)
BENCH := $(BUILD)/bench/bench
EXAMPLE_BINS := $(bpf/examples_BINS)
TSAN_BINS := $(selftests/tsan_BINS)
SUITE_BINS := $(foreach d,$(wildcard selftests/*),$($(d)_SUITES:%.c=$(BUILD)/%))
PLAIN_BINS := $(foreach d,$(filter-out selftests/tsan,$(wildcard selftests/*)),\
	      $(patsubst %.c,$(BUILD)/%,$(filter $(d)/test_%,$($(d)_MAINS))))
TEST_BINS := $(foreach d,$(filter-out selftests/tsan,$(wildcard selftests/*)),$($(d)_BINS))
SHELL_TESTS := $(sort $(wildcard selftests/*/test_*.sh))

# --- targets for people ---

.PHONY: all lib bpf user demo examples tests objects deps check test check-compilers check-programs \
	check-tiny asan ubsan tsan bench performance fast-path lint format install clean help run FORCE

all: lib bpf user demo examples
lib: $(LIBNOLOCK) $(SHARED) $(MALLOC)
bpf: $(BPF_LIB) $(BPF_GROW) $(SKELS)
user: $(USER_BINS)
demo: $(DEMO_BINS)
examples: $(EXAMPLE_BINS)
tests: all $(TEST_BINS) $(BUILD)/scripts/vmlinux $(if $(SAN),,$(BENCH) $(bench/load_BINS))
# Everything that compiles, nothing linked but what the compiling needs.
objects: $(LIB_OBJS) $(MALLOC_OBJS) $(patsubst %.c,$(BUILD)/%.o,$(USER_SRCS) $(USER_MAINS) \
	 $(foreach d,$(PROG_DIRS),$($(d)_ALL)))

help:
	@sed -n '4,/^$$/{s/^# \{0,1\}//p}' Makefile

deps:
	@scripts/deps install build check bench

run:
	@scripts/deps ensure build
	+@$(SUB) all
	@NOLOCK_BUILD=$(BUILD) $(BUILD)/demo/run

RUNNER = selftests/run --build $(BUILD) $(if $(T),--only '$(T)') $(if $(V),--verbose)
SUB = $(MAKE) --no-print-directory $(JOBS)

SUITES := $(SUITE_BINS:%=suite=%) $(PLAIN_BINS:%=program=%)

test:
	@scripts/deps ensure build check
	+@$(SUB) tests
	+@$(RUNNER) $(SUITES) $(SHELL_TESTS:%=program=%)

# Also without restartable sequences, and with ThreadSanitizer.
NO_RSEQ_MAKE = $(SUB) BUILD=$(BUILD)/no-rseq BPFOUT=$(BPFOUT) CFLAGS='$(CFLAGS) -DNOLOCK_NO_RSEQ'

# Of these each runs without sequences in make check, too.
NO_RSEQ_BINS = $(addprefix program=$(BUILD)/no-rseq/selftests/torture/test_,breakpoints kill_random \
	       nomem stepped storms)

.PHONY: torture torture-programs
torture:
	@scripts/deps ensure build check
	+@$(SUB) tests
	+@$(NO_RSEQ_MAKE) torture-programs
	+@$(call SAN_MAKE,tsan,thread) tsan-programs
	@selftests/torture/run --build $(BUILD)

torture-programs: $(USER_BINS) $(selftests/torture_BINS)

# Sanitizers: their own builds of the user side, and the BPF objects of this one.
# What steps through every instruction is left to the plain build: those of a sanitizer are not ours.
SAN_SUITES = $(filter-out suite=$(BUILD)/selftests/malloc/% program=$(BUILD)/selftests/malloc/% \
	suite=$(BUILD)/selftests/user/test_deaths \
	$(addprefix program=$(BUILD)/selftests/torture/test_,breakpoints covered first kill_% stepped),$(SUITES))
SAN_BINS = $(subst =$(BUILD)/,=$(BUILD)/$(1)/,$(SAN_SUITES))
SAN_MAKE = $(SUB) BUILD=$(BUILD)/$(1) BPFOUT=$(BPFOUT) SAN=$(2)
# Both in one, as make check has it.
comma := ,
SAN_BOTH = $(call SAN_MAKE,asan+ubsan,address$(comma)undefined)

asan:
	@scripts/deps ensure build check
	+@$(call SAN_MAKE,asan,address) tests
	+@$(RUNNER) $(call SAN_BINS,asan)

ubsan:
	@scripts/deps ensure build check
	+@$(call SAN_MAKE,ubsan,undefined) tests
	+@$(RUNNER) $(call SAN_BINS,ubsan)

tsan:
	@scripts/deps ensure build check
	+@$(call SAN_MAKE,tsan,thread) tsan-programs
	+@$(RUNNER) $(TSAN_BINS:$(BUILD)/%=program=$(BUILD)/tsan/%)

.PHONY: tsan-programs
tsan-programs: $(TSAN_BINS)

# libFuzzer is clang's. What is built here is for it alone.
FUZZ_MAKE = $(call SAN_MAKE,fuzz,address$(comma)fuzzer-no-link) CC=$(CLANG)
FUZZ_BINS := $(patsubst %.c,$(BUILD)/%,$(wildcard selftests/fuzz/fuzz_*.c))

.PHONY: fuzz fuzz-programs
fuzz:
	@scripts/deps ensure build check
	+@$(FUZZ_MAKE) fuzz-programs
	@NOLOCK_BUILD=$(BUILD) selftests/fuzz/run

fuzz-programs: $(FUZZ_BINS)

$(FUZZ_BINS): %: %.o $(BUILD)/selftests/fuzz/daemon.o $(LIBUSER) $(LIBNOLOCK)
	$(call say,LINK,$@)
	$(Q)$(CC) $(SANFLAGS) -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ $(USER_LIBS)

TINY_MAKE = $(SUB) TINY=1 BUILD=$(BUILD)/tiny
TINY_TORTURE = $(addprefix selftests/torture/test_,breakpoints kill_random stepped storms)
TINY_BINS = $(subst =$(BUILD)/,=$(BUILD)/tiny/,$(filter suite=$(BUILD)/selftests/lib/%,$(SUITES))) \
	    $(TINY_TORTURE:%=program=$(BUILD)/tiny/%)

.PHONY: tiny-tests
tiny-tests: lib-tests $(TINY_TORTURE:%=$(BUILD)/%)

check-tiny:
	@scripts/deps ensure build check
	+@$(TINY_MAKE) tiny-tests
	+@$(RUNNER) $(TINY_BINS)

# What the nodes make a difference to, and does not take long.
NODES_BINS = $(patsubst %,nodes=$(BUILD)/selftests/lib/test_%,api array bulk cache check heap kmalloc \
	     rcu stat storm_api threads)

.PHONY: check-nodes
check-nodes:
	@scripts/deps ensure build check
	+@$(SUB) lib-tests
	+@$(RUNNER) $(NODES_BINS)

.PHONY: lib-tests
lib-tests: $(selftests/lib_BINS)

WITH_GCC = $(SUB) BUILD=$(BUILD)/gcc BPFOUT=$(BPFOUT) CC=gcc WERROR=1 objects
WITH_CLANG = $(SUB) BUILD=$(BUILD)/clang BPFOUT=$(BUILD)/clang CC=$(CLANG) WERROR=1 bpf objects
# The cross compiler has no <sys/sdt.h> of its own; Debian's is the same for all machines.
WITH_ARM64 = $(SUB) BUILD=$(BUILD)/arm64 WERROR=1 lib \
	     CC='$(CC_ARM64) -march=armv8.1-a -idirafter /usr/include/$(shell uname -m)-linux-gnu'

check-compilers:
	@scripts/deps ensure build check
	+@$(WITH_GCC)
	+@$(WITH_CLANG)
	+@$(WITH_ARM64)

# On other kernels, in QEMU, where each of these suites takes half a minute, and two of them up to one
# and a half minutes (bpf/test_nolock_garbage, bpf/test_nolock_pass). make check has those in
# KERNEL_SHORT, allocating and growing and the structures of the examples, and tracing as below.
KERNELS ?= trixie sid
KERNEL_TESTS ?= $(patsubst selftests/%.c,%,$(sort $(wildcard selftests/bpf/test_*.c selftests/user/test_*.c)))
KERNEL_SHORT = bpf/test_arena_self bpf/test_examples
# With the suite's own libbpf, linked to the C library of that Debian by its loader in the machine.
KERNEL_LIBBPF = bpf/test_trace_caches user/test_daemon
LIBBPF_AT = $(abspath $(BUILD))/kernels/$(1)/libbpf
LIBBPF_MAKE = $(SUB) BUILD=$(BUILD)/libbpf-$(1) BPFOUT=$(BPFOUT) KERNEL_TESTS='$(KERNEL_LIBBPF)' \
	      CFLAGS='-O1 -isystem $(LIBBPF_AT)/usr/include' \
	      LDFLAGS='-L$(LIBBPF_AT)/usr/lib/$(shell uname -m)-linux-gnu -Wl,--disable-new-dtags \
	      -Wl,-rpath,/later,--dynamic-linker,/later/ld-linux-x86-64.so.2 \
	      -Wl,--unresolved-symbols=ignore-in-shared-libs'
# $(1): which; scripts/kernels says what is missing of a suite that could not be fetched.
KERNELS_RUN = NOLOCK_KERNELS='$(KERNELS)' scripts/kernels --fetch $(BUILD); \
	$(SUB) kernel-tests KERNEL_TESTS='$(1)' && \
	$(foreach k,$(KERNELS),{ [ ! -e $(BUILD)/kernels/$(k)/libs ] || $(call LIBBPF_MAKE,$(k)) kernel-tests; } &&) \
	NOLOCK_KERNELS='$(KERNELS)' scripts/kernels $(BUILD) $(1:%=$(BUILD)/selftests/%) \
	$(foreach k,$(KERNELS),$(KERNEL_LIBBPF:%=$(BUILD)/libbpf-$(k)/selftests/%))

.PHONY: check-kernels kernel-tests
check-kernels:
	@scripts/deps ensure build check
	+@$(call KERNELS_RUN,$(KERNEL_TESTS))

kernel-tests: $(USER_BINS) $(BUILD)/scripts/tsc_khz $(KERNEL_TESTS:%=$(BUILD)/selftests/%)

PROGRAMS ?=

check-programs:
	@scripts/deps ensure build check programs
	+@$(SUB) all
	@NOLOCK_BUILD=$(BUILD) selftests/programs/run $(PROGRAMS)

# What does not build fails here as a step, and each suite that is missing for it; the rest runs.
check:
	@scripts/deps ensure build check
	+@$(SUB) --keep-going tests || echo 'the build failed: see above'
	+@$(RUNNER) 'step=build=$(SUB) tests' $(SUITES) $(SHELL_TESTS:%=program=%) \
		'step=demo=RUN_SECONDS=3 NOLOCK_BUILD=$(BUILD) $(BUILD)/demo/run' \
		'step=lint=$(MAKE) --no-print-directory lint' \
		'step=gcc, no warning=$(WITH_GCC)' \
		'step=clang, no warning=$(WITH_CLANG)' \
		"step=aarch64, no warning=$(WITH_ARM64)" \
		'step=asan+ubsan build=$(SAN_BOTH) tests' $(call SAN_BINS,asan+ubsan) \
		'step=tiny build=$(TINY_MAKE) tiny-tests' $(TINY_BINS) $(NODES_BINS) \
		"step=no-rseq build=$(NO_RSEQ_MAKE) torture-programs" $(NO_RSEQ_BINS) \
		'step=fuzz build=$(FUZZ_MAKE) fuzz-programs' program=selftests/fuzz/run \
		"step=kernels=$(call KERNELS_RUN,$(KERNEL_SHORT))" \
		'step=tsan build=$(call SAN_MAKE,tsan,thread) tsan-programs' \
		$(TSAN_BINS:$(BUILD)/%=program=$(BUILD)/tsan/%)

# Peers that are missing are left out, in one line each. B is for build/bench/bench alone.
BENCH_ARGS = $(if $(B),--filter='$(B)') $(if $(PROFILE),--profile) \
	     $(if $(BENCH_SECONDS),--seconds=$(BENCH_SECONDS))
BENCH_FILES := $(addprefix $(BUILD)/bench/programs/,cc1 slab.i words.pl rows.sql)

# All rows' tables are kept beside the plots.
bench performance: SHELL := bash
bench performance: .SHELLFLAGS := -o pipefail -c
bench:
	@scripts/deps ensure build
	@scripts/deps ensure bench || echo 'bench: goes on without them'
	+@$(SUB) all $(BENCH_BINS) $(bench/load_BINS) $(BENCH_FILES)
	@CC='$(CC)' scripts/peers $(BUILD)/peers
	@export NOLOCK_BUILD=$(BUILD) NOLOCK_COMMIT="$$(scripts/performance --commit)"; \
		{ $(BENCH) $(BENCH_ARGS)$(if $(B),,$(patsubst %, && { echo; %; },\
		$(filter-out $(BENCH),$(BENCH_BINS)))); } $(if $(B),,| tee $(BUILD)/bench/report.txt)
	@if command -v gnuplot >/dev/null; then gnuplot -c bench/plot.gp $(BUILD)/bench; \
		else echo 'bench: no plots: install gnuplot-nox'; fi

performance:
	@$(if $(B),echo 'make performance: the tables are of all rows: leave B out' >&2; exit 2)
	+@$(MAKE) --no-print-directory bench
	@scripts/performance $(BUILD)

# For the programs that are rows: the compiler itself without its driver, and something to compile.
$(BUILD)/bench/programs/cc1:
	$(Q)mkdir -p $(@D) && ln -sf "$$($(CC) -print-prog-name=cc1)" $@
$(BUILD)/bench/programs/slab.i: lib/slab.c $(BUILD)/.flags
	$(Q)mkdir -p $(@D) && $(CC) $(LIB_CFLAGS) -E -o $@ $<
$(BUILD)/bench/programs/%: bench/programs/%
	$(Q)mkdir -p $(@D) && cp $< $@

# Both machines' libraries, as they are shipped.
fast-path:
	@scripts/deps ensure build check
	+@$(SUB) lib
	+@$(WITH_ARM64)
	@scripts/fastpath $(SHARED) $(BUILD)/arm64/lib/$(SOFILE) >$(BUILD)/fast-path.md
	@mv $(BUILD)/fast-path.md docs/fast-path.md

lint:
	@scripts/deps ensure build check
	+@$(SUB) bpf
	@CLANG_FORMAT=$(CLANG_FORMAT) CLANG_TIDY=$(CLANG_TIDY) \
		scripts/lint $(filter -I% -D%,$(USER_CFLAGS)) $(addprefix -isystem$(BPFOUT)/,bpf $(BPF_DIRS))

format:
	@CLANG_FORMAT=$(CLANG_FORMAT) scripts/lint --format

clean:
	rm -rf $(BUILD)

# --- libnolock ---

$(BUILD)/lib/%.o: lib/%.c $(BUILD)/.flags
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(LIB_CFLAGS) -MD -MP -c -o $@ $<

$(LIBNOLOCK): $(LIB_OBJS) $(BUILD)/.lib
	$(call say,AR,$@)
	$(Q)mkdir -p $(@D) && rm -f $@
	$(Q)$(AR) rcs $@ $(LIB_OBJS)

# nodelete: a thread's rseq area may point into the library for as long as the thread lives.
# A sanitizer's runtime is the program's, so only a plain library can be checked for no-undefined.
$(SHARED): $(LIB_OBJS) $(BUILD)/.lib lib/nolock.map
	$(call say,LINK,$@)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -shared -Wl,-soname,$(SONAME) -Wl,-z,nodelete \
		-Wl,--version-script=lib/nolock.map $(if $(SAN),,-Wl,--no-undefined) \
		-o $@ $(LIB_OBJS)
	$(Q)ln -sf $(SOFILE) $(BUILD)/lib/$(SONAME) && ln -sf $(SONAME) $(BUILD)/lib/libnolock.so

# A call to malloc in the drop-in is one, not the compiler's.
$(MALLOC_OBJS): LIB_CFLAGS += -fno-builtin

# libnolock's functions with their version, so that a program linked to libnolock.so shares the heap
# of the malloc that it runs with; the C library's names without one, for any version asked for.
$(BUILD)/lib/libnolock-malloc.so: $(LIB_OBJS) $(MALLOC_OBJS) $(BUILD)/.lib lib/nolock.map
	$(call say,LINK,$@)
	$(Q)sed '/^local:/,/;/d' lib/nolock.map >$(BUILD)/lib/malloc/nolock.map
	$(Q)$(CC) $(LDFLAGS) -shared -Wl,-soname,$(@F) -Wl,-z,nodelete -Wl,--no-undefined \
		-Wl,--version-script=$(BUILD)/lib/malloc/nolock.map -o $@ $(LIB_OBJS) $(MALLOC_OBJS)

# --- BPF ---

# The examples name the header as it is called where it is installed.
EXAMPLE_RAWS := $(patsubst %.bpf.c,$(BPFOUT)/%.raw.o,$(wildcard bpf/examples/*.bpf.c))
$(EXAMPLE_RAWS): private BPF_CFLAGS += -I$(BPFOUT)/include
$(EXAMPLE_RAWS): | $(BPFOUT)/include/nolock/nolock.bpf.h
$(BPFOUT)/include/nolock/nolock.bpf.h: bpf/nolock.bpf.h
	$(Q)mkdir -p $(@D) && ln -sf $(abspath $<) $@

# The linker of bpftool also drops the debugging sections, which skeletons need not carry.
$(BPFOUT)/%.raw.o: %.bpf.c $(BPFOUT)/.bpf-flags | vmlinux.h
	$(call say,BPF,$(patsubst $(BPFOUT)/%,%,$@))
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -MD -MP -c -o $@ $<

$(BPFOUT)/bpf/libnolock.bpf.o: $(BPFOUT)/bpf/nolock.raw.o
	$(call say,BPFLINK,$(patsubst $(BPFOUT)/%,%,$@))
	$(Q)$(BPFTOOL) gen object $@ $^

$(BPFOUT)/bpf/libnolock-grow.bpf.o: $(BPFOUT)/bpf/nolock_grow.raw.o
	$(call say,BPFLINK,$(patsubst $(BPFOUT)/%,%,$@))
	$(Q)$(BPFTOOL) gen object $@ $^

$(BPF_CALLERS:%.bpf.c=$(BPFOUT)/%.bpf.o): $(BPF_LIB)
$(BPF_GROWERS:%.bpf.c=$(BPFOUT)/%.bpf.o): $(BPF_GROW)
$(BPF_OBJS): $(BPFOUT)/%.bpf.o: $(BPFOUT)/%.raw.o
	$(call say,BPFLINK,$(patsubst $(BPFOUT)/%,%,$@))
	$(Q)$(BPFTOOL) gen object $@ $^

# Not ours to lint: bpftool's code leaks when it runs out of memory.
$(SKELS): %.skel.h: %.bpf.o
	$(call say,SKEL,$(patsubst $(BPFOUT)/%,%,$@))
	$(Q)echo '/* NOLINTBEGIN */' >$@
	$(Q)$(BPFTOOL) gen skeleton $< name $(subst .,_,$(subst -,_,$(basename $(notdir $<)))) >>$@
	$(Q)echo '/* NOLINTEND */' >>$@

DEPS += $(BPF_SRCS:%.bpf.c=$(BPFOUT)/%.raw.d) $(BPFOUT)/bpf/nolock.raw.d $(BPFOUT)/bpf/nolock_grow.raw.d

# Only on request: it is committed, and the BPF objects depend on it.
ifneq ($(filter vmlinux.h,$(MAKECMDGOALS)),)
BTF ?= /sys/kernel/btf/vmlinux
.PHONY: vmlinux.h
vmlinux.h: $(BUILD)/scripts/vmlinux
	$(call say,GEN,$@)
	$(Q)$(BUILD)/scripts/vmlinux $(BTF) vmlinux.roots >$(BUILD)/vmlinux.h
	$(Q)mv $(BUILD)/vmlinux.h $@
endif

$(BUILD)/scripts/%: scripts/%.c $(BUILD)/.flags
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(COMMON) -o $@ $< $(BPF_LIBS)

# --- user side ---

$(BUILD)/user/%.o: user/%.c $(BUILD)/.flags | $(SKELS)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(USER_CFLAGS) -MD -MP -c -o $@ $<

$(LIBUSER): $(USER_SRCS:%.c=$(BUILD)/%.o) $(BUILD)/.user
	$(call say,AR,$@)
	$(Q)mkdir -p $(@D) && rm -f $@
	$(Q)$(AR) rcs $@ $(filter %.o,$^)

$(USER_BINS): %: %.o $(LIBUSER) $(LIBNOLOCK)
	$(call say,LINK,$@)
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) -o $@ $^ $(USER_LIBS)

DEPS += $(LIB_OBJS:.o=.d) $(MALLOC_OBJS:.o=.d) $(patsubst %.c,$(BUILD)/%.d,$(USER_SRCS) $(USER_MAINS))

# --- stamps: rewritten only when what they hold changes ---

stamp = mkdir -p $(@D) && printf '%s\n' '$(subst ','\'',$(1))' | cmp -s - $@ || \
	{ mkdir -p $(@D) && printf '%s\n' '$(subst ','\'',$(1))' >$@; }

# Compilers and flags; first of all, whether what the build needs is there.
$(BUILD)/.flags: FORCE | $(BUILD)/.deps
	@$(call stamp,$(CC) $(COMMON) $(LDFLAGS) $(LIB_CFLAGS) $(USER_CFLAGS))
$(BPFOUT)/.bpf-flags: FORCE | $(BUILD)/.deps
	@$(call stamp,$(CLANG) $(BPF_CFLAGS))
# Which files an archive is made of: a removed source leaves no object newer than the archive.
$(BUILD)/.lib: FORCE
	@$(call stamp,$(LIB_SRCS) $(MALLOC_SRCS))
$(BUILD)/.user: FORCE
	@$(call stamp,$(USER_SRCS))
$(BUILD)/.deps: packages
	@scripts/deps check build
	@mkdir -p $(@D) && touch $@

# --- install ---

prefix ?= /usr/local
libdir ?= $(prefix)/lib
includedir ?= $(prefix)/include
bindir ?= $(prefix)/bin
sbindir ?= $(prefix)/sbin
docdir ?= $(prefix)/share/doc/nolock
INSTALL ?= install
PC = sed -e 's|@prefix@|$(prefix)|g' -e 's|@libdir@|$(libdir)|g' \
	-e 's|@includedir@|$(includedir)|g' -e 's|@version@|$(VERSION)|g' \
	-e 's|@bpfarch@|$(BPF_ARCH)|g' -e "s|@machine@|$$(uname -m)|g" lib/nolock.pc.in

install: all
	$(INSTALL) -d $(DESTDIR)$(includedir)/nolock $(DESTDIR)$(libdir)/pkgconfig \
		$(DESTDIR)$(libdir)/bpf $(DESTDIR)$(bindir) $(DESTDIR)$(sbindir) \
		$(DESTDIR)$(docdir)/examples
	$(INSTALL) -m 644 lib/include/nolock/*.h bpf/nolock.bpf.h \
		$(DESTDIR)$(includedir)/nolock
	$(INSTALL) -m 644 $(LIBNOLOCK) $(DESTDIR)$(libdir)
	$(INSTALL) -m 755 $(SHARED) $(MALLOC) $(DESTDIR)$(libdir)
	ln -sf $(SOFILE) $(DESTDIR)$(libdir)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(libdir)/libnolock.so
	$(INSTALL) -m 644 $(BPF_LIB) $(BPF_GROW) $(DESTDIR)$(libdir)/bpf
	$(INSTALL) -m 644 bpf/examples/*.[ch] $(DESTDIR)$(docdir)/examples
	$(PC) >$(DESTDIR)$(libdir)/pkgconfig/nolock.pc
	$(INSTALL) -m 755 $(BUILD)/user/nolock $(DESTDIR)$(bindir)
	$(INSTALL) -m 755 $(BUILD)/user/nolockd $(DESTDIR)$(sbindir)

-include $(wildcard $(DEPS))
