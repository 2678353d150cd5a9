# SPDX-License-Identifier: GPL-2.0-only
"""The same on a kernel that looks for what tests do not: configs/debug.config.

Whatever it reports, KASAN, lockdep, kmemleak or another, fails the test, because
it is in the log; see guest.TROUBLE.
"""
import re

import counters
import guest
import machine
from fixtures import LONG, TESTED, VENDORS, X86_IOMMUS, bind, claims, members, no_leaks, \
    partition, same_groups, some, to_own

NEEDS = "debug-kernel guest"
FAULTS = 400
# More than the locks that lockdep lets a task hold, 48, in eights.
MANY = 56
# Others may complain of the same, but this says that there is no group.
ERROR = re.compile(r"^<3>.*: Failed to add to (an )?iommu group\b",
                   re.MULTILINE)


def as_described(name, iommu):
    """Grouped as described, before and after its functions come and go.

    Leaks, which take longer to look for than all else, are looked for with LONG=1
    under one vendor, and else by those tests that let things fail or storm.
    """
    described = machine.load(name)
    kmemleak = LONG and iommu == VENDORS[0]
    with guest.Guest(name, iommu, "" if kmemleak else "kmemleak=off",
                     kernel="debug", log="debug-" + name,
                     acpi_hotplug=False) as running:
        expected = described.expected(iommu)
        same_groups(partition(running.groups()), expected)
        # Not what is on bus 0 of its own accord, nor what has SR-IOV on.
        comers = [] if described.guest else \
            sorted(running.groups().keys() - {"00:00.0", "00:01.0", "00:1f.0"})
        for order in (comers, comers[::-1]):
            running.sh("cd /sys/bus/pci/devices; for d in " + " ".join(order)
                       + "; do [ ! -e 0000:$d ] || echo 1 > 0000:$d/remove; "
                       "done; echo 1 > /sys/bus/pci/rescan", timeout=60)
            same_groups(partition(running.groups()), expected)
        running.sh("for d in /sys/bus/pci/devices/*; do "
                   "cat $d/iommu_group_reason; done 2>/dev/null; true")
        if kmemleak:
            no_leaks(running)


def below(port, at):
    """A switch below a port of machines/switch, and more functions than lockdep counts
    locks of one task."""
    up = f"up{at}"
    devices = [f"xio3130-downstream,id={port},bus=up0,addr={at}.0,hotplug=off,"
               f"chassis={at + 4},slot={at + 4}", f"x3130-upstream,id={up},bus={port}"]
    for nth in range(MANY // 8):
        devices.append(f"xio3130-downstream,id={up}dn{nth},bus={up},addr={nth}.0,"
                       f"hotplug=off,chassis={16 * at + nth},slot={nth}")
        devices += [f"edu,bus={up}dn{nth},addr=0.{function},multifunction=on"
                    for function in range(8)]
    return devices


def many_are_claimed(iommu):
    """A group of more devices than a task may hold locks, which reaches as many."""
    with guest.Guest("switch", iommu, "iommu.reach=refuse kmemleak=off", kernel="debug",
                     log="debug-many", more=[*below("dn2", 2), *below("dn3", 3)],
                     acpi_hotplug=False) as running:
        groups = running.groups()
        found = {number: devices for number, devices in members(running).items()
                 if len(devices) > MANY}
        assert len(found) == 2, {number: len(found[number]) for number in found}
        one, other = sorted(found)
        assert f"{other} switch " in running.read(f"/sys/kernel/iommu_groups/{one}/reach")
        device = next(name for name in sorted(groups) if groups[name] == one
                      and name.endswith(".7"))
        bind(running, device)
        for way in "container", "iommufd":
            assert claims(running, to_own(running, way, device)) == ["0"], way


def every_allocation_fails(iommu):
    """One after the other, until a device is in its group.

    That is when it is found, or on 6.12 under virtio-iommu when a driver binds it.
    Whatever fails, the device has a group with all that belongs to it or
    nothing of that, one line in the log says so, and the next try succeeds.
    What fails is allocated in iommu_probe_device(), but for the group's domain:
    stock warns when it has no memory for that, or crashes if it is for DMA.
    """
    device = "0000:00:06.0"
    path = f"/sys/bus/pci/devices/{device}"
    state = (f"for f in iommu_group iommu_group_reason iommu_group/id "
             f"iommu_group/devices/{device}; do [ ! -e {path}/$f ] || echo $f; "
             "done; ls /sys/kernel/iommu_groups")
    leave = f"echo 1 > {path}/remove"
    arrive = "echo 1 > /sys/bus/pci/rescan"
    if iommu in guest.BY_DRIVER:
        leave += f"; {arrive}; echo vfio-pci > {path}/driver_override"
        arrive = f"echo {device} > /sys/bus/pci/drivers_probe"
    failed = 0
    with guest.Guest("e1000e", iommu, "iommu.passthrough=1", kernel="debug",
                     log="faults", acpi_hotplug=False) as running:
        running.sh(
            "cd /sys/kernel/debug/failslab; echo 0 > verbose; "
            "echo N > ignore-gfp-wait; within() { set -- $1 $(grep -A 1 "
            "\" [Tt] $2$\" /proc/kallsyms); "
            "echo 0x$2 > $1-start; echo 0x$5 > $1-end; }; "
            "within require iommu_probe_device; "
            "within reject iommu_setup_default_domain; "
            "grep . require-* reject-*")
        grouped = running.sh(state)
        assert "48" in grouped.split(), grouped
        running.sh(leave)
        ungrouped = running.sh(state)
        assert "48" not in ungrouped.split(), ungrouped
        for nth in range(1, FAULTS):
            # In few commands: to start one takes this kernel long.
            left, now, errors = running.sh(
                f"dmesg -c > /tmp/log; echo {nth} > /proc/self/fail-nth; "
                f"{arrive}; read left < /proc/self/fail-nth; "
                f"echo 0 > /proc/self/fail-nth; echo $left; echo; {state}; "
                "echo; dmesg -r | grep '^<[0-3]>'; true",
                timeout=60).split("\n\n")
            if now + "\n" != grouped:
                assert now + "\n" == ungrouped, \
                    f"allocation {nth} fails: {now.split()}"
                assert len(ERROR.findall(errors)) == 1 and device in errors, \
                    f"allocation {nth} fails: {errors}"
                failed += 1
                retry = arrive if iommu in guest.BY_DRIVER else f"{leave}; {arrive}"
                assert running.sh(f"{retry}; {state}") == grouped, \
                    f"after allocation {nth} failed, it can't be grouped"
            elif int(left):     # there is no such allocation
                break
            assert running.sh(f"{leave}; {state}") == ungrouped
        assert 10 <= failed < FAULTS - 1, f"{failed} allocations failed"
        no_leaks(running)
        counters.add("allocations made to fail in grouping, one by one", failed)


def kunit_suites(kernel):
    """A part of the random topologies does: the kernel is slow.

    Under KCSAN so many accesses wait that what is slow without takes hours.
    """
    options = guest.kunit(4)
    if kernel == "kcsan":
        options += " kunit.filter=speed>very_slow"
    with guest.Guest("root-ports", "none", options, kernel=kernel,
                     log=f"kunit-{kernel}", acpi_hotplug=False) as running:
        results = running.sh("cat /sys/kernel/debug/kunit/*/results")
        assert "not ok " not in results, results[-6000:]
        passed = re.findall(r"^ {4,}ok \d+ (?!.*# SKIP).*$", results,
                            re.MULTILINE)
        assert len(passed) > 70, results
        assert running.log().count(" 1 topologies of ") == 12, results
        if kernel == "debug":
            no_leaks(running)
        counters.add("KUnit tests on the kernel that looks for bugs",
                    len(passed))


def cases():
    for nth, name in enumerate(machine.names()):
        for iommu in some(VENDORS, nth):
            yield (f"{name}, {iommu}: groups are as described, devices come "
                   "and go, nothing is reported", as_described, name, iommu)
    yield ("a group of more devices than a task may hold locks, which reaches as many, is "
           "claimed, and nothing is reported", many_are_claimed, VENDORS[0])
    # Later kernels read firmware's description of virtio-iommu in iommu_probe_device(),
    # and ACPI keeps to itself what fails there, as on stock.
    for iommu in some(X86_IOMMUS if guest.BY_DRIVER else VENDORS):
        yield (f"{iommu}: every allocation fails in turn while a device is "
               "grouped, it has all of its group or nothing, one line says so",
               every_allocation_fails, iommu)
    yield ("every KUnit test passes, nothing leaks and nothing is reported",
           kunit_suites, TESTED if TESTED in guest.LOOK_FOR_BUGS else "debug")
