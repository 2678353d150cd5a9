# SPDX-License-Identifier: GPL-2.0-only
"""Userspace owns a group whole or not at all, and what its devices reach.

What opens devices, maps memory and lets them do DMA is the kselftest of the
series, selftests/vfio/vfio_group; here are the machines to run it on.
"""
import re

import guest
from fixtures import ALONE, GROUP_MF, NO_DMA, NO_RESET, TESTED, VENDORS, Skip, ask, \
    bind, driver, end, kselftest, news, own, owned_as_whole, refused_as_shared, some, \
    to_own

NEEDS = "debug-kernel guest"
# Two functions without ACS, one of them for the host's
# virtio-pci; on bus 0, the only one that QEMU 7.2's amd-iommu translates.
FUNCTIONS = ["edu,bus=pcie.0,addr=5.0,multifunction=on",
             "virtio-rng-pci,bus=pcie.0,addr=5.1"]
# For machines/nested-switches: more ports of the lower switch, all of which is in
# the group of the port above it. The last one is to be filled later.
PORTS = ["xio3130-downstream,id=dn4,bus=up1,addr=2.0,chassis=6,slot=6",
         "virtio-rng-pci,bus=dn4,addr=0.0",
         "xio3130-downstream,id=dn5,bus=up1,addr=3.0,chassis=7,slot=7",
         "e1000e,bus=dn5,addr=0.0",
         "xio3130-downstream,id=dn6,bus=up1,addr=4.0,chassis=8,slot=8"]
# For machines/e1000e, whose functions are isolated: nothing but an option ties
# these to them.
TIED = ["edu,bus=pcie.0,addr=4.3", "virtio-rng-pci,bus=pcie.0,addr=5.4"]
# Two functions on a bus that can be reset.
RESETTABLE = ["pcie-root-port,id=rp0,bus=pcie.0,addr=7.0,chassis=1,slot=1",
              "e1000e,bus=rp0,addr=0.0,multifunction=on",
              "e1000e,bus=rp0,addr=0.1"]

# What says that a device did not get at the page that the kselftest uses.
FAULTS = {
    "intel": r"DMAR: \[DMA {} .*\[(?:0000:)?00:05.0\] fault addr 0x1000000 ",
    "amd": r"0000:00:05.0: AMD-Vi: .*IO_PAGE_FAULT .*address=0x1000000 ",
}


def refused_then_owned(running, device, host, skipped):
    """Refused until the last device of its group is bound to vfio-pci."""
    bind(running, device)
    assert driver(running, host) == "virtio-pci", driver(running, host)
    refused_as_shared(running, device)
    bind(running, host)
    owned_as_whole(running, device, skipped)


def by_topology(iommu, kernel):
    with guest.Guest("nested-switches", iommu, kernel=kernel, log="vfio",
                     more=FUNCTIONS + PORTS,
                     acpi_hotplug=kernel != "debug") as running:
        refused_then_owned(running, "00:05.0", "00:05.1", NO_RESET)
        refused_then_owned(running, "08:00.0", "07:00.0", NO_DMA)
        if iommu == "intel":    # see FUNCTIONS
            bind(running, "05:00.0")
            owned_as_whole(running, "05:00.0")


def status_says_why(iommu):
    """Whoever asks for the status of a group gives up there, as QEMU does."""
    with guest.Guest("nested-switches", iommu, kernel=TESTED, log="status",
                     more=FUNCTIONS) as running:
        bind(running, "00:05.0")
        news(running)
        kselftest(running, "vfio_group", {"VFIO_GROUP_SHARED": "00:05.0"},
                  options="-t group_is_not_viable")
        lines = [line for line in news(running) if "refused" in line]
        assert lines == ["iommu: group 40: refused: 0000:00:05.1 is on virtio-pci"], \
            lines


def by_option(iommu, cmdline):
    with guest.Guest("e1000e", iommu, cmdline, TESTED, log="vfio",
                     more=TIED) as running:
        bind(running, "00:05.3")
        refused_then_owned(running, "00:05.0", "00:05.4", NO_RESET | NO_DMA)
        bind(running, "00:04.0 00:04.1 00:04.2 00:04.3")
        owned_as_whole(running, "00:04.3", NO_RESET)


def fault_is_logged(iommu):
    """By the hardware, and so by the kernel."""
    with guest.Guest("switch", iommu, kernel=TESTED, log="fault",
                     more=FUNCTIONS) as running:
        bind(running, "00:05.0 00:05.1")
        # The kernel logs no more than some in 5 seconds.
        for pause, variant in (0, "container"), (6, "iommufd"):
            running.sh(f"sleep {pause}; dmesg -c")
            owned_as_whole(running, "00:05.0", options="-r whole."
                           f"{variant}.dma_misses_an_unmapped_page")
            said = running.sh("dmesg")
            events = running.sh("awk '/AMD-Vi/ { n += $2 + $3 } "
                                "END { print n + 0 }' /proc/interrupts")
            if iommu == "amd" and int(events) == 0:
                raise Skip("this QEMU's amd-iommu refuses what is not mapped, "
                           "but has sent no event for the kernel to log")
            for access in "Read", "Write":
                assert re.search(FAULTS[iommu].format(access), said), \
                    f"{variant}: no {access} fault is logged:\n{said}"


def hot_reset(name, iommu, bound, more, skipped):
    """The numbers are those that drivers get."""
    with guest.Guest(name, iommu, kernel=TESTED, log="hot-reset",
                     more=more) as running:
        bind(running, bound)
        said = owned_as_whole(running, "01:00.0", NO_DMA | skipped)
        numbers = dict(re.findall(r"hot reset: 0000:(\S+) (\d+)", said))
        bus = {device for device in running.groups() if device[:3] == "01:"}
        assert set(numbers) == bus, said
        running.sh("insmod /group_probe.ko")
        for device, number in numbers.items():
            answer = ask(running, device)
            assert answer == f"0 {number}\n", f"{device}: {number}, {answer}"


def hot_added(iommu):
    """Into a group with an owner: the host's driver must wait for its end."""
    late = "09:00.0"
    with guest.Guest("nested-switches", iommu, kernel=TESTED, log="hot-added",
                     more=PORTS) as running:
        bind(running, "05:00.0 06:00.0 07:00.0 08:00.0")
        group = running.groups()["05:00.0"]
        for way in "container", "iommufd":
            owner = to_own(running, way, "05:00.0")
            own(running, owner)
            running.device_add("virtio-rng-pci", id="late", bus="dn6",
                               addr="0.0")
            running.wait(lambda: running.groups().get(late) is not None,
                         "the late device's group")
            assert running.groups()[late] == group, running.groups()
            status, _ = running.run(
                f"echo 0000:{late} > /sys/bus/pci/drivers/virtio-pci/bind")
            assert status and not driver(running, late), \
                f"{owner} has an owner, {late} {driver(running, late)}"
            # Nothing but the owner kept the driver from it.
            end(running, "vfio-claim")
            running.sh(f"echo 0000:{late} > /sys/bus/pci/drivers_probe")
            assert driver(running, late) == "virtio-pci"
            running.device_del("late")
            running.wait(lambda: late not in running.groups(), "it to go")


def cases():
    for iommu in VENDORS:
        yield (f"{iommu}: functions without ACS, and what is below a port "
               "without ACS, are owned whole or not at all, and reach what is "
               "mapped for them", by_topology, iommu, TESTED)
        for cmdline in GROUP_MF, "pci=group_mf=00:04.1;00:05.3":
            yield (f"{iommu} '{cmdline}': functions that an option ties are "
                   "owned whole or not at all, and reach what is mapped for "
                   "them", by_option, iommu, cmdline)
        yield (f"{iommu}: a group that is not viable has a line in the log",
               status_says_why, iommu)
        yield (f"{iommu}: a device that misses memory is in the log",
               fault_is_logged, iommu)
        says = "the hot reset information has the numbers drivers get"
        yield (f"{iommu}: {says}, of functions in one group", hot_reset,
               "e1000e", iommu, "01:00.0 01:00.1", RESETTABLE, set())
        yield (f"{iommu}: {says}, of functions in a group each", hot_reset,
               "sriov", iommu, "01:00.0", [], ALONE)
        yield (f"{iommu}: a device that is hot-added into a group with an "
               "owner is not for a driver of the host", hot_added, iommu)
    for iommu in some(VENDORS):
        yield (f"{iommu}, debug: groups are owned whole or not at all, and "
               "nothing is reported", by_topology, iommu, "debug")
