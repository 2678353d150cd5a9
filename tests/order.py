# SPDX-License-Identifier: GPL-2.0-only
"""Groups, numbers and reasons do not depend on the order of finding or binding.

Where firmware or a device tree describes the IOMMU a device gets its group on 6.12
when a driver binds it, so any order may come about: from sysfs, from the command line,
or from whoever gives devices to VFIO one by one. Later kernels group when a device is
added: there all of it must be so at once, and stay so.
"""
import itertools
import random

import guest
import machine
from fixtures import LONG, NO_DMA, NO_RESET, PLAIN, TESTED, THIRD_PORT, bind, boot, \
    claims, end, news, own, owned_as_whole, some, to_own
from guest import UNSAFE

NEEDS = "arm64 guest"
SHUFFLED = 3 if LONG else 1
SEED = 20261125
# No driver for ports, so that they have no group. The others are in the same
# groups with the same numbers all the same, also those that are named for a port.
NO_PORTS = "pcie_ports=compat"
# What is on bus 0 of its own accord, the IOMMU among it, stays as it is.
STAYS = ("00:00.0", "00:01.0", "00:1f.0", "00:1f.2", "00:1f.3")


def orders(devices):
    """From the lowest, from the highest, and some that are neither."""
    yield devices
    yield devices[::-1]
    for nth in range(SHUFFLED):
        yield random.Random(f"{SEED} {nth}").sample(devices, len(devices))


def bridges(running):
    """Their driver is the kernel's own, and takes them when they are found."""
    return {machine.short(line.split()[0])
            for line in running.sh("lspci").splitlines()
            if line.split()[1].startswith("0604")}


def find_again(running, devices):
    """None has a driver then but the ports, nor a group."""
    running.sh("cd /sys/bus/pci/devices; for d in " + " ".join(devices[::-1])
               + "; do [ ! -e 0000:$d ] || echo 1 > 0000:$d/remove; done; "
               "echo 1 > /sys/bus/pci/rescan", timeout=60)


def give_to_vfio(running, device):
    """If the IOMMU's driver does not refuse it."""
    running.sh(f"echo vfio-pci > /sys/bus/pci/devices/0000:{device}/"
               f"driver_override; echo 0000:{device} > "
               "/sys/bus/pci/drivers_probe; true")


def must_be(running, expected, devices, when):
    """These have the group, and the reason, that they have in another boot."""
    groups, reasons = running.groups(), running.reasons()
    for device in devices:
        assert groups[device] == expected.groups[device], \
            f"{when}: {device} is in {groups[device]}, not " \
            f"{expected.groups[device]}"
        assert reasons.get(device) == expected.reasons.get(device), \
            f"{when}: {device}: {reasons.get(device)}, not " \
            f"{expected.reasons.get(device)}"


def by_sysfs(name, iommu, cmdline, option):
    """Every device that has no driver is given to vfio-pci, in many orders."""
    expected = boot(name, iommu, cmdline)
    with guest.Guest(name, iommu, f"{cmdline} {option}".strip(), TESTED,
                     log=f"order-{name}", bind=False) as running:
        found = sorted(set(expected.groups) - set(STAYS))
        ports = bridges(running)
        devices = [device for device in found if device not in ports]
        for order in orders(devices):
            find_again(running, found)
            groups = running.groups()
            early = [device for device in devices if groups[device] is not None]
            if iommu not in guest.BY_DRIVER:
                must_be(running, expected, devices, "found again")
            else:
                assert not early, f"in a group without a driver: {early}"
                if option == NO_PORTS:
                    assert not any(groups[port] for port in ports), groups
            for nth, device in enumerate(order, 1):
                give_to_vfio(running, device)
                must_be(running, expected, order[:nth],
                        f"bound {' '.join(order[:nth])}")


def by_command_line(name, iommu, cmdline):
    """Some are vfio-pci's from the start, before or after the others."""
    expected = boot(name, iommu, cmdline)
    several = "1234:11e8", "8086:10d3", "1b36:0005"
    # Where devices are grouped as they are found, binding makes no difference.
    for ids in several if guest.BY_DRIVER else some(several):
        with guest.Guest(name, iommu, f"{cmdline} vfio-pci.ids={ids}".strip(),
                         TESTED, log=f"order-{name}") as running:
            must_be(running, expected, sorted(expected.groups), ids)


def by_vfio(iommu, order):
    """Functions go to VFIO, and get an owner, one after the other.

    The bit is on the last one only, and ties all of them, also before it has a
    driver.
    """
    functions = [f"00:04.{function}" for function in order]
    with guest.Guest("e1000e", iommu, f"pci=group_mf=00:04.2 {UNSAFE}", TESTED,
                     log="order-owned", bind=False) as running:
        for nth, device in enumerate(functions, 1):
            bind(running, device)
            groups = running.groups()
            assert all(groups[other] == 32 for other in functions[:nth]), groups
            own(running, to_own(running, "iommufd", device))
            end(running, "vfio-claim")
        owned_as_whole(running, functions[0], NO_DMA | NO_RESET)
        for device in functions:
            for way in "container", "iommufd":
                assert claims(running, to_own(running, way, device)) == ["0"]
        # Another owner is refused, but not because of what is reached
        assert not [line for line in news(running)
                    if "iommu: group" in line and " past " in line]


def owner_meanwhile(iommu):
    """The one that ties the others arrives while the first has an owner."""
    with guest.Guest("e1000e", iommu, f"pci=group_mf=00:04.2 {UNSAFE}", TESTED,
                     log="order-meanwhile", bind=False) as running:
        bind(running, "00:04.0")
        own(running, "group 32")
        bind(running, "00:04.1 00:04.2")
        groups = running.groups()
        assert groups["00:04.1"] == groups["00:04.2"] == 32, groups
        assert running.run("pidof vfio-claim")[0] == 0
        end(running, "vfio-claim")
        assert claims(running, "group 32") == ["0"]


def enabled_meanwhile(iommu):
    """One of those that are tied is at work without a driver, so without a group."""
    with guest.Guest("e1000e", iommu, f"pci=group_mf=00:04.2 {UNSAFE}", TESTED,
                     log="order-enabled", bind=False) as running:
        bind(running, "00:04.0")
        running.sh("echo 1 > /sys/bus/pci/devices/0000:00:04.1/enable")
        assert claims(running, "group 32") == ["0"]
        lines = [line for line in news(running) if " past " in line]
        assert lines == ["iommu: group 32: 0000:00:04.1 (no IOMMU group) can be "
                         "reached past 0000:00:04.0: tied late"], lines


# One more port of machines/switch, and what is below it. The other two isolate by
# this option, as ports with ACS do; arm64 wants to be asked for that of the Root
# Port, see machines/demo.
THIRD = [THIRD_PORT, "edu,bus=dn2,addr=0.0"]
TWO_ISOLATE = {
    "virtio": "pci=assume_acs=02:00.0;02:01.0",
    "smmu": "pci=assume_acs=02:00.0;02:01.0,config_acs=0011101@pci:1b36:000c"}
BELOW = {"03:00.0": (0x300, "base"), "04:00.0": (0x400, "base"),
         "05:00.0": (0x210, "path 02:02.0")}


def port_without_acs(iommu, option):
    """Only what is below it is in its group, whichever is bound first or last."""
    with guest.Guest("switch", iommu, f"{TWO_ISOLATE[iommu]} {option}".strip(),
                     TESTED, log="order-ports", more=THIRD, bind=False) \
            as running:
        by_driver = iommu in guest.BY_DRIVER
        assert not by_driver or \
            not any(running.groups()[device] for device in BELOW)
        for order in itertools.permutations(BELOW):
            for nth, device in enumerate(order, 1):
                give_to_vfio(running, device)
                groups, reasons = running.groups(), running.reasons()
                found = {other: (groups[other], reasons.get(other))
                         for other in BELOW}
                expected = {other: BELOW[other]
                            if other in order[:nth] or not by_driver
                            else (None, None) for other in BELOW}
                assert found == expected, f"{order}: {found}"
                # Nobody is told that it is in the way of others.
                said = [line for line in news(running) if "refused" in line]
                assert not said, said
            find_again(running, sorted(BELOW))


def lowest_has_no_driver(iommu, below):
    """A group of one has the number of what belongs to it and has no group."""
    with guest.Guest("multifunction", iommu, UNSAFE, TESTED, log="order-alone",
                     bind=False) as running:
        bind(running, below)
        assert running.groups()[below] == 256, running.groups()
        assert running.groups()["01:00.0"] is None
        assert running.reasons()[below] == "function 01:00.0"
        for way in "container", "iommufd":
            assert claims(running, to_own(running, way, below)) == ["0"]


def machines():
    for name in ("demo", "switch", "nested-switches", "multifunction"):
        yield name, "virtio", PLAIN
    yield "e1000e", "virtio", "iommu.group_mf=1"
    # The bit is on the last Function; but where devices are grouped as they are found,
    # on the first: one that ties others when they have a group comes late.
    bit = 2 if guest.BY_DRIVER else 0
    yield "e1000e", "smmu", f"pci=group_mf=00:04.{bit}"
    # See machines/demo.
    yield "demo", "smmu", "pci=config_acs=0011101@pci:1b36:000c"


def cases():
    for name, iommu, cmdline in machines():
        where = f"{name}, {iommu} '{cmdline}'"
        # The SMMU's driver refuses what a bridge speaks for once that has a driver.
        for option in (PLAIN, NO_PORTS) if iommu == "virtio" else (PLAIN,):
            yield (f"{where} '{option}': numbers and reasons do not depend on the "
                   "order in which sysfs binds", by_sysfs, name, iommu, cmdline,
                   option)
        if iommu == "virtio":       # once, it takes a boot for each
            yield (f"{where}: nor on what the command line gives to vfio-pci",
                   by_command_line, name, iommu, cmdline)
    for order in "012", "210", "102":
        yield (f"virtio: functions that a bit on 2 ties are in one group, and can "
               f"be owned, when VFIO gets them in the order {order}", by_vfio,
               "virtio", order)
    yield ("virtio: functions join one that has an owner already, and can be "
           "owned with it later", owner_meanwhile, "virtio")
    if guest.BY_DRIVER:     # else none is without a group
        yield ("virtio: a function that is enabled without a driver is named when the "
               "one that it belongs with is owned", enabled_meanwhile, "virtio")
    for iommu in TWO_ISOLATE:
        for option in PLAIN, NO_PORTS:
            yield (f"{iommu} '{option}': of three Downstream Ports the one without "
                   "ACS ties nothing but what is below it, in every order of "
                   "binding", port_without_acs, iommu, option)
    for below in ("01:00.1", "01:00.2") if guest.BY_DRIVER else ():
        yield (f"virtio: {below} alone has the number of the function without a "
               "driver that it is tied to", lowest_has_no_driver, "virtio",
               below)
