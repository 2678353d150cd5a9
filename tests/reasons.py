# SPDX-License-Identifier: GPL-2.0-only
"""Why devices share a group: iommu_group_reason."""
import machine
from fixtures import GROUP_MF, PLAIN, VENDORS, X86_IOMMUS, boot, requester_id

NEEDS = "guest arm64"
RULES = ("alias", "path", "function", "group_mf")


def lowest(devices):
    return min(devices, key=lambda device: (device.count(":"), device))


def lead_to_members(name, iommu, cmdline):
    """Base for the lowest, a rule and another member for the others."""
    found = boot(name, iommu, cmdline)
    grouped = {device for device, number in found.groups.items()
               if number is not None}
    assert set(found.reasons) == grouped, \
        f"devices with a reason: {sorted(found.reasons)}"
    for group in found.partition():
        for device in group:
            reason = found.reasons[device]
            if device == lowest(group):
                assert reason == "base", f"{device}: {reason}, not base"
                continue
            rule, _, named = reason.partition(" ")
            assert rule in RULES and named in group - {device}, \
                f"{device}: '{reason}' is no rule and another of {group}"


def lead_to_base(name, iommu, cmdline):
    """From any device, each by the reason of the one before."""
    found = boot(name, iommu, cmdline)
    for start, number in found.groups.items():
        way = [start] if number is not None else []
        while way and found.reasons[way[-1]] != "base":
            way.append(found.reasons[way[-1]].partition(" ")[2])
            said = f"{' '.join(way)}: {found.reasons}"
            assert way[-1] not in way[:-1], f"in a circle: {said}"
            assert found.groups.get(way[-1]) == number, f"out of the group: {said}"
        assert not way or requester_id(way[-1]) == number, \
            f"{' '.join(way)} is not what {number} is from"


def as_described(name, iommu):
    found = boot(name, iommu).reasons
    for device, reason in machine.load(name).reasons(iommu).items():
        assert found[device] == reason, \
            f"{device}: {found[device]}, not {reason}"


def in_the_log(name, iommu):
    """The log's last words on a device are the file's, unless others came."""
    found = boot(name, iommu)
    for device, number in found.groups.items():
        lines = [line for line in found.log
                 if f"{device}: Adding to iommu group" in line]
        if number is None:
            assert not lines, f"{device} has no group: {lines}"
            continue
        assert len(lines) == 1, f"{device}: {lines}"
        said, _, reason = lines[0].rpartition(f"iommu group {number}: ")
        assert said, f"{device} is in group {number}: {lines[0]}"
        rule = reason.split()[0]
        assert rule == "base" or rule in RULES, lines[0]
        if len(found.partition()) == len(found.reasons):
            assert rule == "base", lines[0]


def group_mf_is_named(iommu):
    found = boot("e1000e", iommu, GROUP_MF).reasons
    for device, reason in {"00:04.0": "base", "00:04.1": "group_mf 00:04.0",
                           "00:04.2": "group_mf 00:04.0",
                           "00:05.3": "group_mf 00:05.0",
                           "00:06.0": "base"}.items():
        assert found[device] == reason, \
            f"{device}: {found[device]}, not {reason}"


def cases():
    for name in machine.names():
        for iommu in X86_IOMMUS:
            yield (f"{name}, {iommu}: the lowest of a group is its base, the "
                   "others name a rule and another member",
                   lead_to_members, name, iommu, PLAIN)
            yield (f"{name}, {iommu}: the log gives the number and a reason "
                   "once for each device", in_the_log, name, iommu)
            yield (f"{name}, {iommu}: reasons lead from any device to the one that "
                   "the group has its number from", lead_to_base, name, iommu, PLAIN)
            if machine.load(name).reasons(iommu):
                yield (f"{name}, {iommu}: reasons are as described",
                       as_described, name, iommu)
        for iommu in VENDORS:
            yield (f"{name}, {iommu}: reasons name a member with "
                   f"{GROUP_MF}", lead_to_members, name, iommu, GROUP_MF)
            yield (f"{name}, {iommu}: reasons lead to the base with {GROUP_MF}",
                   lead_to_base, name, iommu, GROUP_MF)
        for kind, iommu, cmdline in machine.load(name).blocks:
            if (kind, iommu) == ("groups", "smmu"):
                yield (f"{name}, {iommu}: reasons lead to the base with '{cmdline}'",
                       lead_to_base, name, iommu, cmdline)
    for iommu in VENDORS:
        yield (f"{iommu}: what only the option ties says group_mf",
               group_mf_is_named, iommu)
