# SPDX-License-Identifier: GPL-2.0-only
"""Who shares a group with whom, on every machine of machines/."""
import machine
from fixtures import GROUP_MF, PLAIN, VENDORS, X86_IOMMUS, boot, same_groups, show

NEEDS = "stock guest"
# Other ways to say the same, and the machines that show it: with Functions that
# it ties and Functions that it must not tie.
SPELLINGS = ("iommu.group_mf=1", "iommu=pt,group_mf", "iommu=group_mf,pt")
SPELT_ON = ("demo", "sriov")


def as_described(name, iommu, cmdline):
    expected = machine.load(name).expected(
        iommu, GROUP_MF if "group_mf" in cmdline else PLAIN)
    boot(name, iommu, cmdline).check(expected)


def stock_as_described(name, iommu):
    boot(name, iommu, kernel="stock").check(machine.load(name).stock(iommu))


def as_stock(name, iommu):
    same_groups(boot(name, iommu).partition(),
                boot(name, iommu, kernel="stock").partition())


def wider_than_stock(name, iommu):
    ours = boot(name, iommu).partition()
    stock = boot(name, iommu, kernel="stock").partition()
    split = {group for group in stock
             if not any(group <= wider for wider in ours)}
    assert not split, f"groups of stock that we split: {show(split)}"
    assert ours != stock, "the groups equal stock's"


def cases():
    for name in machine.names():
        described = machine.load(name)
        for iommu in X86_IOMMUS:
            where = f"{name}, {iommu}:"
            yield (f"{where} stock groups are as described",
                   stock_as_described, name, iommu)
            yield (f"{where} groups are as described",
                   as_described, name, iommu, PLAIN)
            if described.stock(iommu) == described.expected(iommu):
                yield f"{where} groups equal stock's", as_stock, name, iommu
            else:
                yield (f"{where} groups are wider than stock's, as described",
                       wider_than_stock, name, iommu)
        for iommu in VENDORS:
            for cmdline in (GROUP_MF,
                            *(SPELLINGS if name in SPELT_ON else ())):
                yield (f"{name}, {iommu}: {cmdline} merges physical functions "
                       "only", as_described, name, iommu, cmdline)
