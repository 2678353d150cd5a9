"""The KUnit suite in the series, on a kernel of its own, and on stock.

scripts/kunit has kunit.py build and run it. Its tests are in
drivers/iommu/pci-group-test*.c; what they print of themselves is checked here,
so that a suite that ran too little does not pass.
"""
import re
import subprocess

from guest import BUILD, TOP
from proof import KERNEL, Skip

PATCHED = (r"(?P<topologies>\d+) topologies of \d+ functions",)
STOCK = (r"of (?P<topologies>\d+) topologies \d+ equal.*",
         r"stock depends on.*")


def passes(kernel, folder, *summaries):
    if KERNEL != "patched":
        raise Skip("it needs the series, and has its own stock kernel")
    done = subprocess.run([TOP / "scripts/kunit", kernel], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-6000:]
    log = (BUILD / folder / "test.log").read_text(errors="replace")
    for summary in summaries:
        found = re.search(summary, log)
        assert found, f"the suite does not say '{summary}'"
        print(f"# {kernel}: {found.group()}")
        for number in found.groupdict().values():
            assert int(number) >= 2000, f"only {found.group()}"


def cases():
    yield ("every test passes, random topologies have the groups that the "
           "rules give", passes, "patched", "kunit", *PATCHED)
    yield ("random topologies: stock differs by rules 1 and 3 only", passes,
           "stock", "kunit-stock", *STOCK)
