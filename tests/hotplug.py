# SPDX-License-Identifier: GPL-2.0-only
"""Devices that come and go while the guest runs."""
import guest
from fixtures import GROUP_MF, PLAIN, TESTED, VENDORS, ids, news, partition, same_groups

NEEDS = "guest"
PORT = "rp2"        # of machines/root-ports: empty, its bus is 03


def come_and_go(iommu, cmdline, functions):
    """Adds a device of so many functions, twice, and removes it each time.

    Its functions do not isolate from each other: they share a group.
    """
    devices = {f"03:00.{function}" for function in range(functions)}
    with guest.Guest("root-ports", iommu, cmdline, TESTED,
                     log="hotplug") as running:
        before = ids(running)
        for _ in range(2):
            # Function 0 comes last: its arrival is what the guest is told.
            for function in reversed(range(functions)):
                running.device_add(
                    "edu", id=f"new{function}", bus=PORT,
                    addr=f"0.{function}", multifunction=functions > 1)
            running.wait(lambda: all(ids(running).get(device)
                                     for device in devices),
                         f"an id of {devices}")
            now = ids(running)
            groups = running.groups()
            for device in devices:
                assert now[device] == str(groups[device]), \
                    f"{device}: id says {now[device]}, " \
                    f"the link {groups[device]}"
                assert now[device] == now["03:00.0"], f"two groups: {now}"
                assert now[device] not in before.values(), \
                    f"in a group that was there before: {now}"
            running.device_del("new0")
            running.wait(lambda: not devices & set(ids(running)),
                         f"{devices} to go")
            assert ids(running) == before, "the other devices' groups"
            left = set(running.sh("ls /sys/kernel/iommu_groups").split())
            assert left == set(before.values()) - {None}, \
                f"groups left: {left}"


def come_back(iommu, cmdline, removed):
    """Functions that are removed and found again are grouped as before."""
    with guest.Guest("e1000e", iommu, cmdline, TESTED,
                     log="rescan") as running:
        before = partition(running.groups())
        for device in removed:
            running.sh(f"echo 1 > /sys/bus/pci/devices/0000:{device}/remove")
            assert device not in ids(running)
        running.sh("echo 1 > /sys/bus/pci/rescan")
        same_groups(partition(running.groups()), before)


def not_covered():
    """The log says so of what is found later as of what is there at boot."""
    with guest.Guest("no-unit", "intel", kernel=TESTED, log="not-covered") as running:
        for removed, without in (("00:05.0", ["00:05.0"]), ("00:06.0", []),
                                 ("00:03.0", ["00:03.0", "01:00.0"])):
            news(running)
            running.sh(f"echo 1 > /sys/bus/pci/devices/0000:{removed}/remove; "
                       "echo 1 > /sys/bus/pci/rescan")
            lines = [line for line in news(running) if "No group" in line]
            assert lines == [f"pci 0000:{device}: No group: no IOMMU covers it"
                             for device in without], f"{removed}: {lines}"


def cases():
    for iommu in VENDORS:
        for cmdline in (PLAIN, GROUP_MF):
            for functions in (1, 3):
                yield (f"{iommu} '{cmdline}': id comes and goes with a device "
                       f"of {functions} functions",
                       come_and_go, iommu, cmdline, functions)
        for cmdline in (PLAIN, GROUP_MF, "pci=group_mf=00:04.1"):
            for removed in (["00:04.1"], ["00:04.0", "00:04.1", "00:04.2"]):
                yield (f"{iommu} '{cmdline}': {' '.join(removed)} removed and "
                       "found again, the groups are as before",
                       come_back, iommu, cmdline, removed)
    yield "a device found later that no unit covers is logged, and no other", not_covered
