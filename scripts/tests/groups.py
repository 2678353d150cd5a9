"""Who shares a group with whom, on every machine of machines/."""
import machine
from proof import GROUP_MF, PLAIN, VENDORS, boot, same_groups

# Every way to say the same.
SPELLINGS = (GROUP_MF, "iommu.group_mf=1", "iommu=pt,group_mf",
             "iommu=group_mf,pt")


def as_described(name, iommu, cmdline, kernel=None):
    expected = machine.load(name).expected(
        iommu, GROUP_MF if cmdline in SPELLINGS else PLAIN)
    boot(name, iommu, cmdline, kernel).check(expected)


def as_stock(name, iommu):
    same_groups(boot(name, iommu).partition(),
                boot(name, iommu, kernel="stock").partition())


def cases():
    for name in machine.names():
        for iommu in VENDORS:
            where = f"{name}, {iommu}:"
            yield (f"{where} stock groups are as described",
                   as_described, name, iommu, PLAIN, "stock")
            yield (f"{where} groups are as described",
                   as_described, name, iommu, PLAIN)
            yield f"{where} groups equal stock's", as_stock, name, iommu
            for cmdline in SPELLINGS:
                yield (f"{where} {cmdline} merges physical functions only",
                       as_described, name, iommu, cmdline)
