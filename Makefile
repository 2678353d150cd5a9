# The verbs. Each makes what it needs first; scripts/ has what they do.
.NOTPARALLEL:
.PHONY: help setup tree export kernel debug stock kunit guest run shell test check bench mutants clean

help:            ## list the verbs
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 12

setup:           ## install the Debian packages that are missing
	@scripts/setup

tree: setup      ## make build/linux: the kernel source, the series on a branch
	@scripts/tree

export: setup    ## write that branch back to patches/
	@scripts/export

kernel: tree     ## build build/linux into build/patched
	@scripts/kernel patched

debug: tree      ## build it once more with configs/debug.config, into build/debug
	@scripts/kernel debug

stock: tree      ## build the same without the series into build/stock
	@scripts/kernel stock

kunit: tree      ## build the kernels of the KUnit suite, with the series and without
	@scripts/kernel kunit
	@scripts/kernel kunit-stock

guest: kernel    ## make what runs inside the machines
	@scripts/guest-files

run: guest       ## boot the demo machine, print its IOMMU groups
	@scripts/run

shell: guest     ## a prompt in a guest: IOMMU=intel|amd|virtio|none CMDLINE= MACHINE=
	@scripts/shell

test: stock guest debug kunit ## run the tests, or with T=pattern those whose name matches
	@scripts/test

check: tree      ## check the patches and the rig with the kernel's programs (quick: scripts/check quick)
	@scripts/check

bench: stock guest ## count instructions, with the series and without
	@scripts/bench
	@scripts/bench-calls

mutants: tree    ## break PCI grouping in many ways: do the tests notice?
	@scripts/mutants

clean:           ## remove what was built; the kernel tree and its work stay
	@scripts/clean
