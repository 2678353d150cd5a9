# SPDX-License-Identifier: GPL-2.0-only
"""The prompt that make shell gives, on a terminal of its own."""
import os
import pty
import select
import subprocess
import time

import where

NEEDS = "arm64 guest"


def talk(iommu, name, cmdline, typed, wanted):
    """Types once the prompt is there; all that is wanted must come back."""
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        [where.TOP / "scripts/shell"], stdin=theirs, stdout=theirs,
        stderr=theirs, start_new_session=True,
        env=dict(os.environ, IOMMU=iommu, MACHINE=name, CMDLINE=cmdline,
                 KERNEL=""))
    os.close(theirs)
    said = ""
    end = time.monotonic() + 300
    try:
        while time.monotonic() < end:
            if not select.select([ours], [], [], 1)[0]:
                continue
            try:
                said += os.read(ours, 4096).decode(errors="replace")
            except OSError:     # the other end is closed
                break
            if typed and "# " in said:
                os.write(ours, typed.encode())
                typed = ""
        status = shell.wait(10)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it does not end: {said}") from None
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    assert status == 0, f"it ends with {status}: {said}"
    for part in wanted:
        assert part in said, f"no '{part}' in: {said}"


def cases():
    yield ("a prompt, a command, and exit ends it", talk, "amd", "e1000e",
           "iommu=group_mf", "lspci; cat /proc/cmdline; exit\n",
           ["0000:00:04.1", "8086:10d3", "iommu=group_mf"])
    yield ("what was printed last before exit is seen", talk, "none", "demo", "",
           "seq 999; exit\n", ["\n999\r"])
    yield ("a guest without an IOMMU", talk, "none", "demo", "",
           "ls /sys/kernel/iommu_groups | wc -l; exit 0\n", ["\n0\r"])
    yield ("a machine with Virtual Functions, without an IOMMU", talk, "none", "sriov",
           "", "lsiommu 01:00.4; exit\n", ["can be owned, without an IOMMU"])
    yield ("a guest of arm64", talk, "smmu", "switch", "",
           "lspci; exit\n", ["0000:02:01.0", "driver pcieport group "])
