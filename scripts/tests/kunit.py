"""The KUnit suite in the series, with the series and on stock.

scripts/kunit has kunit.py boot and judge it. Its tests are in
drivers/iommu/tests/; what they print of themselves is checked here,
so that a suite that ran too little does not pass.
"""
import re
import subprocess

import figures
from guest import OUT, TOP, TROUBLE
from proof import KERNEL, Skip

AT_LEAST = {"topologies": 2000, "claims": 2000, "inputs": 500, "calls": 1000}
WHAT = {"topologies": "random topologies under KUnit",
        "claims": "random topologies whose groups are claimed under KUnit",
        "inputs": "values given to the parsers of options under KUnit",
        "calls": "calls of iommu_device_group() while devices come and go"}
PATCHED = (r"random_topologies_give_the_groups_of_the_rules: "
           r"(?P<topologies>\d+) topologies of \d+ functions",
           r"claims_and_binds_are_granted_exactly_when_nobody_is_in_the_way: "
           r"(?P<claims>\d+) topologies of \d+ functions",
           r"pci_group_mf_takes_devices: (?P<inputs>\d+) inputs.*",
           r"iommu_group_ids_takes_two_words: (?P<inputs>\d+) inputs.*",
           r"iommu_takes_group_mf_among_others: (?P<inputs>\d+) inputs.*",
           r"(?P<calls>\d+) calls on \d+ threads.*")
STOCK = (r"stock_differs_only_by_rule_1: (?P<topologies>\d+) topologies of.*",
         r"\d+ equal, .*stock depends on.*")


def passes(kernel, *summaries):
    if KERNEL != "patched":
        raise Skip("it needs the series, and boots the stock kernel itself")
    done = subprocess.run([TOP / "scripts/kunit", kernel], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-6000:]
    log = (OUT[kernel] / "test.log").read_text(errors="replace")
    trouble = TROUBLE.search(log)
    assert not trouble, log[trouble.start() - 500:trouble.start() + 3000]
    for summary in summaries:
        # A case can have several parts
        found = list(re.finditer(summary, log))
        assert found, f"the suite does not say '{summary}'"
        for name in found[0].groupdict():
            number = sum(int(part[name]) for part in found)
            said = found[0].group()
            print(f"# {kernel}: {said}, {number} in all", flush=True)
            assert number >= AT_LEAST[name], f"only {number}: {said}"
            figures.add(f"{WHAT[name]}, {kernel}", number)


def cases():
    yield ("every test passes, random topologies have the groups that the "
           "rules give", passes, "patched", *PATCHED)
    yield ("random topologies: stock differs by rule 1 and its order only", passes,
           "stock", *STOCK)
