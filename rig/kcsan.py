# SPDX-License-Identifier: GPL-2.0-only
"""Data races that KCSAN reports, and which of them are the series' matter.

A report has the stacks of two accesses, or of one where nobody knows who made the
other. It concerns the series if either has a function that the series adds, at any
depth, or if a function that the series changes makes the access. An inlined function
is not in a stack, but who calls it is.
"""
import functools
import re

import counters
from changed import FOLDERS
from command import git

REPORT = re.compile(r"BUG: (KCSAN: .*\n(?:.*\n)*?)=+$", re.MULTILINE)
FRAME = re.compile(r" (\w+)[\w.]*\+0x[0-9a-f]+/0x[0-9a-f]+")
# What makes an access in the name of its caller, besides KCSAN's own functions.
HELPERS = re.compile(r"__tsan_|_*kcsan_|mem|_*list_|atomic|_find_")
WHERE = (*FOLDERS, ":!drivers/iommu/tests")


@functools.cache
def functions():
    """The functions that the series adds, and those that it changes."""
    diff = git("diff", "-U0", "base", "--", *WHERE)
    added, removed, changed = (
        set(re.findall(line + r".*?\b(\w+)\(", diff, re.MULTILINE))
        for line in (r"^\+(?![ \t#*/])", r"^-(?![ \t#*/])", "^@@ .*@@ "))
    return added - removed, changed | (added & removed)


def concerns(report):
    added, changed = functions()
    for stack in report.split("\n\n"):
        # What an interrupt interrupts has nothing to do with it.
        frames = FRAME.findall(re.split(r"^ asm_", stack, flags=re.MULTILINE)[0])
        access = next((name for name in frames if not HELPERS.match(name)), None)
        if access in changed or added.intersection(frames):
            return True
    return False


def others_left_out(log):
    """The log without the titles of reports that are not the series' matter."""
    # One from another processor may be between the lines of one.
    log = re.sub(r"^\[ *\d+\.\d+\] ", "", log, flags=re.MULTILINE)

    def judge(match):
        if concerns(match[1]):
            return match[0]
        counters.add("data races that are not the series', reported by KCSAN")
        return match[1]
    return REPORT.sub(judge, log)
