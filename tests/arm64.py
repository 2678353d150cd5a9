# SPDX-License-Identifier: GPL-2.0-only
"""Arm64 gives the same devices the same groups, numbers and reasons.

On the machines that have a `groups smmu` block: QEMU's virt machine with SMMUv3,
which the device tree describes.
"""
import guest
import machine
from fixtures import VENDORS, boot, numbered_by_requester_id

NEEDS = "guest arm64"


def as_described(name, cmdline):
    boot(name, "smmu", cmdline).check(
        machine.load(name).expected("smmu", cmdline))


def by_requester_id(name, cmdline):
    numbered_by_requester_id(boot(name, "smmu", cmdline).groups)


def as_on_x86(name, cmdline, vendor):
    """Of the devices that have a group on both: the machine file's."""
    here, there = boot(name, "smmu", cmdline), boot(name, vendor)
    shared = {device for device, number in here.groups.items()
              if number is not None and device in there.groups}
    described = machine.load(name)
    assert len(shared | described.ungrouped("smmu")) > len(described.devices), \
        f"only {sorted(shared)}"
    for what in ("groups", "reasons"):
        ours, theirs = getattr(here, what), getattr(there, what)
        differ = [f"{device}: {ours[device]}, {vendor}: {theirs[device]}"
                  for device in sorted(shared)
                  if ours[device] != theirs[device]]
        assert not differ, "; ".join(differ)


def without_options(name, cmdline):
    found, other = boot(name, "smmu"), boot(name, "smmu", cmdline)
    assert (found.groups, found.reasons) == (other.groups, other.reasons)


def cases():
    for name in machine.names():
        for kind, iommu, cmdline in machine.load(name).blocks:
            if (kind, iommu) != ("groups", "smmu"):
                continue
            yield (f"{name}: groups are as described", as_described, name,
                   cmdline)
            yield (f"{name}: a group's number is the Requester ID of its "
                   "lowest member", by_requester_id, name, cmdline)
            if not guest.BY_DRIVER:
                yield (f"{name}: ACS is asked for before devices are grouped, so "
                       "groups and numbers need no option", without_options, name,
                       cmdline)
            for vendor in VENDORS:
                yield (f"{name}: numbers and reasons equal those under "
                       f"{vendor}", as_on_x86, name, cmdline, vendor)
