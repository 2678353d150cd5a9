# SPDX-License-Identifier: GPL-2.0-only
"""Why devices share a group: iommu_group_reason."""
import guest
import machine
from fixtures import GROUP_MF, PLAIN, TESTED, VENDORS, X86_IOMMUS, boot, requester_id

NEEDS = "guest arm64"
RULES = ("alias", "path", "function", "group_mf")
# The locks that all groups share; and what waits for one of them, for the group's own,
# and for the device's.
LOCKS = ("iommu_probe_device_lock", "pci_reach_mutex", "pci_group_mutex")
WAIT = ("cat /sys/kernel/iommu_groups/{group}/reach",
        "cat /sys/kernel/iommu_groups/{group}/type",
        "echo {device} > /sys/bus/pci/drivers_probe")
# The function of AMD's IOMMU, which it does not cover.
AMD = "00:01.0"


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
            if iommu in VENDORS:
                why = [line for line in found.log if f"{device}: No group: " in line]
                assert len(why) == (device != AMD), f"{device}: {why}"
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


def no_lock_is_taken(iommu):
    """Whoever has the locks of groups and devices, a reader does not wait."""
    if guest.MUTANT:
        raise machine.Skip("a mutant has the kallsyms of the kernel without it")
    with guest.Guest("switch", iommu, kernel=TESTED, log="reason-locks") as running:
        before = running.reasons()
        # Endpoints, which have no driver, and the ports above them.
        held = ["03:00.0", "04:00.0", "01:00.0", "02:00.0", "02:01.0"]
        assert before.keys() > set(held), before
        waiting = [command.format(group=running.groups()[held[0]],
                                  device=machine.full(held[0])) for command in WAIT]
        addresses = running.sh("awk '$3 ~ /^(" + "|".join(LOCKS)
                               + ")$/ { print \"0x\" $1 }' /proc/kallsyms").split()
        assert len(addresses) == len(LOCKS), addresses
        running.sh(f"insmod /hold_locks.ko mutexes={','.join(addresses)} devices="
                   + ",".join(map(machine.full, held)))
        # They do not end, nor does this command if a reader of reasons waits.
        for nth, command in enumerate(waiting):
            running.sh(f"{{ {command} && echo done; }} > /tmp/{nth} 2>&1 &")
        assert running.reasons() == before
        running.sh("sleep 1")
        for nth, command in enumerate(waiting):
            assert running.read(f"/tmp/{nth}") == "", f"'{command}' takes no lock"
        running.sh("rmmod hold_locks")
        for nth, command in enumerate(waiting):
            running.wait(lambda nth=nth: running.read(f"/tmp/{nth}").endswith("done\n"),
                         f"'{command}' to end")


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
        yield (f"{iommu}: who reads a reason does not wait for who holds the locks of "
               "groups and devices, as those of other files do", no_lock_is_taken,
               iommu)
        yield (f"{iommu}: what only the option ties says group_mf",
               group_mf_is_named, iommu)
