# SPDX-License-Identifier: GPL-2.0-only
"""Which lines of the kernel's tree the series adds or changes."""
import re

from command import git

# Where most of the series is
FOLDERS = ("drivers/iommu", "drivers/pci", "drivers/vfio")


def lines(file):
    """Their numbers in the work tree."""
    said = git("diff", "-U0", "base", "--", file)
    return {line for start, count in
            re.findall(r"^@@ \S+ \+(\d+)(?:,(\d+))? @@", said, re.M)
            for line in range(int(start), int(start) + int(count or 1))}


def files():
    """The files of C in FOLDERS, but for tests."""
    return [file for file in git("diff", "--name-only", "--diff-filter=d", "base",
                                 "--", *FOLDERS, ":!*/tests/*").splitlines()
            if file.endswith(".c")]
