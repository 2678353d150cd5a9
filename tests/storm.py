# SPDX-License-Identifier: GPL-2.0-only
"""Devices that come and go in storms, while others read and ask.

The machine is machines/sriov, with three kinds of devices below ports of bus 0,
which sysfs removes and finds again, and below ports of a second root bus, which
QEMU leaves to native hotplug where bus 0 has ACPI's.
"""
import re

import counters
import guest
import machine
from fixtures import FOURTH_PORT, LONG, TESTED, THIRD_PORT, VENDORS, acs_control, bind, \
    claims, end, members, no_leaks, numbered_by_requester_id, set_word, some, to_own, word

NEEDS = "debug-kernel guest"
KINDS = {
    "endpoint": ["edu,bus={port},addr=0.0"],
    "functions": ["pci-testdev,bus={port},addr=0.0,multifunction=on",
                  "pci-testdev,bus={port},addr=0.1",
                  "edu,bus={port},addr=0.2"],
    "switch": ["x3130-upstream,id={port}up,bus={port},addr=0.0",
               "xio3130-downstream,id={port}dn0,bus={port}up,addr=0.0,"
               "hotplug=off,chassis={slot},slot=1",
               "xio3130-downstream,id={port}dn1,bus={port}up,addr=1.0,"
               "hotplug=off,chassis={slot},slot=2",
               "edu,bus={port}dn0,addr=0.0",
               "edu,bus={port}dn1,addr=0.0"],
}

# Slot: what is below, and the number of the bus there. QEMU cannot hot-add a
# Downstream Port. But where the slot's power is always on, a switch stays in it
# that the kernel has taken out by native hotplug and will take in again.
SYSFS = {4: ("endpoint", "02"), 5: ("functions", "03"), 6: ("switch", "04")}
POWER = {10: ("endpoint", "41"), 11: ("functions", "42"), 12: ("switch", "43")}
# And for what QEMU adds while it runs, this many functions.
CARDS = {13: (1, "47"), 14: (3, "48")}

# How often with LONG=1: by sysfs, by power, the cards, SR-IOV on and off. Those that
# cost least most often, 1,000 for the two vendors.
CYCLES = ({"endpoint": 200, "functions": 100, "switch": 50},
          {"endpoint": 60, "functions": 40, "switch": 30}, 12, 15)
# Without, and where data races are looked for.
HALF = ({kind: times // 2 for kind, times in CYCLES[0].items()},
        {kind: times // 2 for kind, times in CYCLES[1].items()}, 6, 7)
# How often two claim what the other reaches.
CLAIMS = 40
# On the debug kernel, and without native hotplug: in 6.12's pciehp_pci.c, which
# the series does not touch, each hot-add takes reset_lock once before and once
# after pci_rescan_remove_lock, and lockdep reports that.
FEW = ({"endpoint": 4, "functions": 3, "switch": 3}, {}, 0, 2)

# For machines/switch: a port more of the switch, with what the host uses, and one with
# what comes and goes.
REACHED = [THIRD_PORT, "virtio-rng-pci,bus=dn2,addr=0.0",
           FOURTH_PORT, "edu,bus=dn3,addr=0.0"]

READERS = 2
# Of each kind of asking, the least that is a test.
ASKED = 300


def port(slot, bus, options=""):
    return (f"pcie-root-port,id=port{slot},bus={bus},addr={slot:x}.0,"
            f"chassis={slot},slot={slot}{options}")


def filled(slots, bus, options=""):
    """Ports, and what is below them."""
    found = []
    for slot, (kind, _) in slots.items():
        found.append(port(slot, bus, options))
        found += [device.format(port=f"port{slot}", slot=slot)
                  for device in KINDS[kind]]
    return found


def devices(native):
    """What the machine has, beside that of its file."""
    if not native:
        return filled(SYSFS, "pcie.0")
    return [*filled(SYSFS, "pcie.0"),
            "pxb-pcie,id=pxb0,bus=pcie.0,addr=8.0,bus_nr=64",
            *filled(POWER, "pxb0", ",power_controller_present=off"),
            *(port(slot, "pxb0") for slot in CARDS)]


def begin(running, name, times, commands):
    """Starts a loop of shell commands; each of them has to succeed."""
    running.sh(f"loop() {{ for i in $(seq {times}); do "
               f"{' && '.join(commands)} || return; done; }}; "
               "cd /sys/bus/pci/devices; { loop && echo done || "
               "echo failed in cycle $i; } "
               f"> /tmp/loop.{name} 2>&1 &")


def begin_cycles(running, name, times, bus, remove, add):
    """A loop of cycles, which see that what is on the bus goes and comes."""
    first = f"0000:{bus}:00.0"
    begin(running, name, times,
          [*remove, f"[ ! -e {first} ]", add, f"[ -e {first} ]"])


def begin_loops(running, sysfs, power, toggles):
    for kind, bus in SYSFS.values():
        functions = range(3 if kind == "functions" else 1)
        begin_cycles(running, f"sysfs-{kind}", sysfs[kind], bus,
                     [f"echo 1 > 0000:{bus}:00.{function}/remove"
                      for function in functions],
                     f"echo 1 > /sys/class/pci_bus/0000:{bus}/rescan")
    for slot, (kind, bus) in POWER.items():
        if kind in power:
            switch = f"/sys/bus/pci/slots/{slot}/power"
            begin_cycles(running, f"power-{kind}", power[kind], bus,
                         [f"echo 0 > {switch}"], f"echo 1 > {switch}")
    begin(running, "sriov", toggles,
          [f"echo {number} > 0000:01:00.0/sriov_numvfs && "
           f"[ {'!' if number == 0 else ''} -e 0000:01:00.1 ]"
           for number in (0, 4)])


def let_loops_end(running):
    running.wait(lambda: running.run(
        "cd /tmp; for loop in loop.*; do [ -s $loop ] || exit 1; done")[0]
        == 0, "the loops to end", timeout=300)
    ends = running.sh("cd /tmp; grep -v '^done$' loop.*; true")
    assert not ends, ends


def add_cards(running):
    for slot, (functions, bus) in CARDS.items():
        # Function 0 comes last: its arrival is what the guest is told.
        for function in reversed(range(functions)):
            running.device_add("edu", id=f"card{slot}.{function}",
                               bus=f"port{slot}", addr=f"0.{function}",
                               multifunction=functions > 1)
    for functions, bus in CARDS.values():
        running.wait(lambda: running.run(
            f"[ -e /sys/bus/pci/devices/0000:{bus}:00.{functions - 1}/"
            "iommu_group/id ]")[0] == 0, f"cards on bus {bus}")


def remove_cards(running, by_button):
    """By the button of the slot, which blinks for 5 s, or by its power.

    A slot that powers on, or off and on once more as the kernel sees first that a card
    is there and then that QEMU pressed the button for it, refuses until it is on.
    """
    if by_button:
        for slot in CARDS:
            running.device_del(f"card{slot}.0")
    else:
        running.sh("cd /sys/bus/pci/slots; "
                   + " ".join(f"until echo 0 > {slot}/power; do sleep 0.1; done &"
                              for slot in CARDS)
                   + " wait", timeout=60)
    for _, bus in CARDS.values():
        running.wait(lambda: running.run(
            f"[ -e /sys/bus/pci/devices/0000:{bus}:00.0 ]")[0],
            f"what is on bus {bus} to go")
    running.wait(lambda: not any(
        child["name"].startswith("card") for child
        in running.qmp("qom-list", path="/machine/peripheral")),
        "QEMU to take the cards out")


def state(running):
    return running.groups(), members(running), running.reasons()


def storm(iommu, kernel, sysfs, power, cards, toggles):
    with guest.Guest("sriov", iommu, kernel=kernel, log="storm",
                     more=devices(native=cards),
                     acpi_hotplug=cards > 0) as running:
        # Much is printed in a storm, and the serial port is slow.
        running.sh("dmesg -n 5")
        if cards:
            add_cards(running)
        before = state(running)
        groups = {device: number for device, number in before[0].items()
                  if number is not None}
        numbered_by_requester_id(groups)
        names = ",".join(f"{machine.full(device)}={number}"
                         for device, number in groups.items())
        module = "group_threads" + (f"-{kernel}" if kernel in guest.LOOK_FOR_BUGS
                                    else "")
        running.sh(f"insmod /{module}.ko devices={names}")
        for reader in range(READERS):
            running.sh(f"group-readers > /tmp/reader.{reader} 2>&1 &")

        begin_loops(running, sysfs, power, toggles)
        for nth in range(cards):
            remove_cards(running, by_button=nth == 0)
            add_cards(running)
        let_loops_end(running)
        end(running, "group-readers")
        for reader in range(READERS):
            said = running.read(f"/tmp/reader.{reader}")
            found = re.fullmatch(r"(\d+) read, (\d+) absent, 0 wrong\n", said)
            assert found and int(found[1]) > ASKED and int(found[2]) > 10, \
                said[-2000:]
            counters.add("reads of groups while devices come and go",
                        int(found[1]) + int(found[2]))
        running.sh("rmmod group_threads")
        said = running.sh("dmesg | grep 'group_threads: .*wrong'")
        counts = re.search(r"(\d+) right, (\d+) none, (\d+) gone, 0 wrong, "
                           r"regrouped (\d+) times$", said)
        assert counts and int(counts[1]) > ASKED and int(counts[3]) > 10 \
            and int(counts[4]) > 100, said

        for was, now in zip(before, state(running)):
            assert was == now, f"at first {was}\nand now {now}"
        if kernel == "debug":
            no_leaks(running)
        counters.add("cycles of hot-add and hot-remove",
                    sum(sysfs.values()) + sum(power.values())
                    + cards * len(CARDS))
        counters.add("calls of iommu_device_group() by a module",
                    int(counts[1]) + int(counts[2]))


def claims_meet(iommu):
    """Two owners, the host's driver, a device, the policy and ACS come and go."""
    one, other, host, late, port = "03:00.0", "04:00.0", "05:00.0", "06:00.0", "00:03.0"
    with guest.Guest("switch", iommu, kernel=TESTED, log="storm-claims", more=REACHED,
                     acpi_hotplug=False) as running:
        running.sh("dmesg -n 5")
        bind(running, f"{one} {other}")
        driver = "/sys/bus/pci/drivers/virtio-pci"
        policy = "/sys/module/iommu/parameters/reach"
        ways = [to_own(running, "container", one), to_own(running, "iommufd", other)]
        for nth, words in enumerate(ways):
            begin(running, f"claim-{nth}", CLAIMS, [f"vfio-claim {words} >> /tmp/claims"])
        # Who is refused, or tried again meanwhile, has said so.
        begin(running, "host", CLAIMS, [
            f"{{ echo 0000:{host} > {driver}/unbind; echo 0000:{host} > {driver}/bind; "
            "true; } 2> /dev/null"])
        begin(running, "late", CLAIMS, [f"echo 1 > 0000:{late}/remove",
                                        "echo 1 > /sys/class/pci_bus/0000:06/rescan",
                                        f"[ -e 0000:{late} ]"])
        begin(running, "policy", CLAIMS, [f"echo {word} > {policy}"
                                          for word in ("refuse", "warn")])
        begin(running, "files", CLAIMS, [
            "{ cat /sys/kernel/iommu_groups/*/reach /sys/kernel/iommu_groups/*/state; "
            "true; } > /dev/null 2>&1"])
        control = acs_control(running, port)
        for _ in range(CLAIMS // 4):
            on = word(running, port, control)
            for value in 0, on:
                set_word(running, port, control, value)
        let_loops_end(running)
        answers = [line.split()[1] for line in running.read("/tmp/claims").splitlines()]
        assert len(answers) == 2 * CLAIMS and set(answers) == {"0", "1"}, answers

        running.sh(f"echo refuse > {policy}; [ ! -e {driver}/0000:{host} ] || "
                   f"echo 0000:{host} > {driver}/unbind")
        assert claims(running, " ".join(ways)) == ["0", "0"]
        counters.add("claims while all that decides them changes", len(answers))


def cases():
    for iommu in VENDORS:
        yield (f"{iommu}: claims that meet, with all that decides them coming and "
               "going, are granted or refused", claims_meet, iommu)
        yield (f"{iommu}: groups and their numbers outlive storms of devices, "
               "and are right for all who read and ask meanwhile",
               storm, iommu, TESTED, *(CYCLES if LONG and TESTED != "kcsan" else HALF))
    for iommu in some(VENDORS):
        yield (f"{iommu}, debug: the same, nothing leaks, and nothing is "
               "reported", storm, iommu, "debug", *FEW)
