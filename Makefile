# SPDX-License-Identifier: GPL-2.0-only
# The verbs. Each makes what it needs first; scripts/ has what they do.
.NOTPARALLEL:
.PHONY: help setup tree export carry kernel debug-kernel stock arm64 guest userspace run \
	replay shell test kunit check debug kcsan bench mutants coverage deb mail clean

help:            ## list the verbs: 6.12's, or with KERNEL=7.3 that kernel's; check does both
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

setup:           ## install the Debian packages that are missing
	@scripts/setup

tree: setup      ## make build/linux: the kernel source, the series on a branch (build/7.3/linux)
	@scripts/tree

export: setup    ## write that branch back to patches/6.12/
	@scripts/export

carry: tree      ## take what changed in the other kernel's branch to KERNEL='s
	@scripts/carry

kernel: tree     ## build build/linux into build/patched
	@scripts/kernel patched

debug-kernel: tree ## build it once more with configs/debug.config, into build/debug
	@scripts/kernel debug

stock: tree      ## build the base, with the series' KUnit tests of grouping alone, into build/base/stock
	@scripts/kernel stock

deb: tree        ## build Debian packages of it: CONFIG= LOCALMOD=1, see scripts/deb
	@scripts/deb

arm64: tree      ## build it for arm64 into build/arm64, and what runs inside
	@scripts/kernel arm64
	@scripts/guest arm64

guest: kernel    ## make what runs inside the machines
	@scripts/guest

userspace: guest ## get Debian's own programs for a guest
	@scripts/userspace

run: guest       ## boot the demo machine, print its IOMMU groups
	@scripts/run

replay: setup    ## what groups another machine would have: LSPCI=FILE, see scripts/replay
	@scripts/replay --check
	@$(MAKE) --no-print-directory stock guest
	@scripts/replay

shell: guest     ## a prompt in a guest: IOMMU=intel|amd|virtio|smmu|none CMDLINE= MACHINE= ON=stock
	@scripts/shell

test: export SINCE := $(shell date +%s)
test: setup      ## run the tests, and 7.3's after them: T=pattern, ON=stock, ALSO= for 6.12 alone
	@needs=$$(scripts/test --needs) && $(MAKE) --no-print-directory $$needs
	@scripts/test

kunit: tree      ## run the series' KUnit suites on build/patched: see scripts/kunit
	@scripts/kunit

check: stock userspace ## check the patches and the rig with the kernel's programs (quick: scripts/check quick)
	@scripts/check

debug: debug-kernel guest ## run all tests of the kernel that finds bugs (KASAN, lockdep): T=pattern
	@LONG=1 scripts/test "$${T:-debug: }"

kcsan: kernel    ## look for data races while devices and owners come and go, on build/kcsan
	@scripts/kernel kcsan
	@scripts/guest
	@ON=kcsan scripts/test "$${T:-storm: \w+: |vfio: \w+: functions without ACS|every KUnit}"

bench: stock guest ## count instructions, with the series and without
	@scripts/bench

mutants: kernel  ## break the series in hundreds of ways: do the tests notice? T=pattern
	@[ -z "$(GUESTS)" ] || { needs=$$(scripts/mutants --needs) && \
		$(MAKE) --no-print-directory $$needs; }
	@scripts/mutants

coverage: setup  ## which lines of the series do the tests reach? T=pattern of tests in guests
	@needs=$$(scripts/coverage --needs) && $(MAKE) --no-print-directory $$needs
	@scripts/coverage

mail: setup      ## write a part of the series as mails: PART= V=2, for 7.3; bare, list the parts
	@scripts/mail

clean:           ## remove what was built; the kernel tree and its work stay
	@scripts/clean
