# SPDX-License-Identifier: GPL-2.0-only
"""The series as commits, a tree to walk through them, and what compilers say.

What is checked is what make tree made of patches/, or the branch or commit that
the variable SERIES names, in the kernel's tree.
"""
import collections
import fcntl
import functools
import hashlib
import os
import pathlib
import re
import sys

import build
import command
from build import work_tree
from command import git, say
from where import BUILD, LINUX, TOP

STATE = BUILD / "check"
TREE = STATE / "linux"

MESSAGE = re.compile(r"\b(warning|error|fatal error|sorry)\b: |\*\*\* ", re.I)
PLACE = re.compile(r":\d+(:\d+(-\d+)?)?(?=:)|\+0x[0-9a-f]+| line \d+")

in_use = []
run = functools.partial(command.run, cwd=TREE)


def head():
    """The last commit of the series."""
    return os.environ.get("SERIES") or \
        (LINUX / ".git/rig-patches").read_text().split()[1]


def commits():
    """The base, and each commit of the series."""
    return [git("rev-parse", "base^{commit}").strip(),
            *git("rev-list", "--reverse", f"base..{head()}").split()]


def name(commit):
    return git("show", "-s", "--format=%h %s", commit).strip()


def checkout(commit):
    """One program at a time has the tree."""
    STATE.mkdir(parents=True, exist_ok=True)
    if not in_use:
        in_use.append((STATE / "lock").open("w"))
        fcntl.flock(in_use[0], fcntl.LOCK_EX)
    work_tree(TREE, commit)


def touched(first, last, *suffixes):
    """The files that differ, and are there at the end."""
    return [file for file in git("diff", "--name-only", "--diff-filter=d",
                                 first, last).splitlines()
            if file.endswith(suffixes or "")]


def messages(output):
    """What tools complain of, without where exactly, and how often.

    Of a header it counts once: every file that includes it says so again.
    """
    found = collections.Counter(
        PLACE.sub("", re.sub(rf"({TREE}|\.\./{TREE.name})/", "", line)).strip()
        for line in output.splitlines() if MESSAGE.search(line))
    for line in found:
        if re.match(r"[^:]+\.h:", line):
            found[line] = 1
    return found


def new_messages(what, before, after):
    """Says what is complained of and was not before, or not as often.

    True where there is none.
    """
    new = sorted((collections.Counter(after)
                  - collections.Counter(before)).items())
    for line, count in new:
        say(f"NEW, {what}: {line}" + (f" ({count} more)" if count > 1 else ""))
    return not new


@functools.cache
def version(tool):
    return run(tool, "--version", cwd=TOP)[1]


class Build(build.Build):
    """A directory that the tree is compiled in."""

    def __init__(self, directory, fragments=(), **options):
        super().__init__(TREE, STATE / directory, fragments, **options)
        self.arch = "arm64" if options.get("arch") == "arm64" else "x86"

    def key(self, *things):
        """What tells one result from another."""
        digest = hashlib.sha256()
        for thing in (*self.command, *things, self.on, self.off,
                      *(file.read_text() for file in self.fragments),
                      *(pathlib.Path(file).read_text()
                        for file in (__file__, sys.argv[0])),
                      *map(version, (self.compiler, "sparse", "spatch"))):
            digest.update(repr(thing).encode())
        return digest.hexdigest()[:24]


BUILDS = {
    "x86_64": Build("x86_64", ["base.config", "check/all.config"],
                    on=["INTEL_IOMMU", "AMD_IOMMU", "VIRTIO_IOMMU", "VFIO_PCI",
                        "KUNIT_ALL_TESTS"]),
    "noiommu": Build("noiommu", ["noiommu.config", "check/noiommu.config"],
                     on=["PCI", "PCI_IOV"], off=["IOMMU_API"]),
    "i386": Build("i386", ["base.config", "check/all.config"], arch="i386",
                  on=["INTEL_IOMMU", "VIRTIO_IOMMU", "VFIO_PCI"],
                  off=["64BIT"]),
    "arm64": Build("arm64", ["base.config", "check/all.config",
                             "check/arm64.config"],
                   arch="arm64", cross="aarch64-linux-gnu-",
                   on=["ARM_SMMU_V3", "VIRTIO_IOMMU", "VFIO_PCI"]),
}
