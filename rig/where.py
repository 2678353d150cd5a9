# SPDX-License-Identifier: GPL-2.0-only
"""Where things are for the kernel that is worked on, as in lib.sh.

That is the first of rig/kernels, or the one that KERNEL= says.
"""
import os
import pathlib
import sys

from kernels import KERNELS

TOP = pathlib.Path(__file__).resolve().parent.parent
KERNEL = os.environ.get("KERNEL") or KERNELS[0]
if KERNEL not in KERNELS:
    sys.exit(f"no KERNEL={KERNEL}: there are {' '.join(KERNELS)} "
             "(rig/kernels)")
# What the name of each test of another kernel begins with
PREFIX = "" if KERNEL == KERNELS[0] else f"{KERNEL}: "


def build(kernel):
    """What is made of the first is in build/, of another in build/<kernel>/."""
    return TOP / "build" / ("" if kernel == KERNELS[0] else kernel)


BUILD = build(KERNEL)
LINUX = BUILD / "linux"
PATCHES = TOP / "patches" / KERNEL
# The kernels that scripts/kernel builds. Stock's source is beside it.
OUT = {name: BUILD / name for name in ("patched", "debug", "kcsan", "coverage",
                                       "arm64", "noiommu")}
OUT["stock"] = BUILD / "base/stock"
