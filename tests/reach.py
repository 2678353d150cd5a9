# SPDX-License-Identifier: GPL-2.0-only
"""Who may own a device, or use it, by what DMA gets to without the IOMMU.

A group reaches a device where its members' DMA can get to that device's memory and
the IOMMU does not see it: through a switch, through a device with several
functions, or because the two belong together since lately, for which see late.py.
"""
import guest
from fixtures import ALONE, FOURTH_PORT, TESTED, THIRD_PORT, NO_RESET, VENDORS, \
    VENDORS_ALIKE, Skip, acs_control, bind, claims, driver, end, kselftest, members, news, \
    own, owned_as_whole, partition, refused_as_shared, same_groups, set_word, some, to_own, \
    unbind, word

NEEDS = "stock debug-kernel guest"
EPERM = "1"
POLICIES = ("refuse", "warn")
WAYS = ("container", "iommufd")
POLICY = "/sys/module/iommu/parameters/reach"
WRONG_POLICIES = ("perhaps", "", "Refuse", "refuse,", " warn", "1", "x" * 300)

# More ports of machines/switch, none of which has ACS. Below are two edu devices,
# one that the host uses, and nothing yet.
SWITCH = [THIRD_PORT, "virtio-rng-pci,bus=dn2,addr=0.0", FOURTH_PORT]
HERE, THERE, HOST, LATE = "03:00.0", "04:00.0", "05:00.0", "06:00.0"
PORT = {HERE: "02:00.0", THERE: "02:01.0", HOST: "02:02.0", LATE: "02:03.0"}
GROUP = {HERE: 512, THERE: 520, HOST: 528, LATE: 536}
# The same with another device for the host, in place of nothing.
TWO_FOR_HOST = [*SWITCH, "virtio-rng-pci,bus=dn3,addr=0.0"]
# A device with Virtual Functions, in place of nothing.
NVME = ["nvme-subsys,id=subsys0",
        "nvme,bus=dn3,addr=0.0,serial=1,subsys=subsys0,sriov_max_vfs=4,sriov_vq_flexible=8,"
        "sriov_vi_flexible=4,max_ioqpairs=12,msix_qsize=9"]
# One that has nothing to do with all these.
APART = "00:08.0"
BESIDE_SWITCH = ["edu,bus=pcie.0,addr=8.0"]

# How often somebody tries who does not give up, and what he may have of the log: so
# many lines in so many seconds.
ATTEMPTS, LINES, INTERVAL = 30, 10, 5

# For machines/root-ports, whose ports have ACS and so a group each: a function
# without ACS beside them, and a device for the host below the third one.
BESIDE_PORTS = ["edu,bus=pcie.0,addr=3.3,dma_mask=0xffffffff",
                "virtio-rng-pci,bus=rp2,addr=0.0"]

# The ways of selftests/vfio to own two groups that are not tied late.
SELFTEST = ("containers", "iommufds", "container_then_iommufd",
            "iommufd_then_container")

# Registers, and bits of them.
COMMAND, MEMORY, MASTER = 0x04, 0x2, 0x4
SV, RR, CR, UF, DT = 0x01, 0x04, 0x08, 0x10, 0x40

EDU = "010000ed\n"          # what its memory starts with, which nothing else does
# Its register that gives back the opposite of what is written, those of its DMA,
# and its buffer.
INVERTED = 0x4
SOURCE, TARGET, COUNT, START = 0x80, 0x88, 0x90, 0x98
BUFFER, TO_BUFFER, FROM_BUFFER = 0x40000, 0x1, 0x3


def set_policy(running, policy):
    running.sh(f"echo {policy} > {POLICY}")
    assert running.read(POLICY) == policy + "\n"


def must_be_on(running, device, on=True):
    """Its memory answers and it may do DMA, or neither. HOST's is not looked at."""
    command = word(running, device, COMMAND)
    bits = command & (MEMORY | MASTER)
    assert bits == (MEMORY | MASTER if on else 0), f"{device}: {command:x}"
    if device != HOST:
        found = running.sh(f"pci-peek 0000:{device}")
        assert (found == EDU) == on, f"{device}: {found}"


def does_dma(running, device, other):
    """Has an edu copy the other's first register to its INVERTED by DMA."""
    memory = int(running.read(
        f"/sys/bus/pci/devices/0000:{other}/resource").split()[0], 16)
    running.sh(f"pci-peek 0000:{other} {INVERTED} 0")
    for source, target, command in ((memory, BUFFER, TO_BUFFER),
                                    (BUFFER, memory + INVERTED, FROM_BUFFER)):
        running.sh(f"pci-peek 0000:{device} {SOURCE} {source} {TARGET} {target} "
                   f"{COUNT} 4 {START} {command}; sleep 0.3")
    found = running.sh(f"pci-peek 0000:{other} {INVERTED}")
    assert found in ("ffffffff\n", f"{~int(EDU, 16) & 0xffffffff:08x}\n"), found
    return found != "ffffffff\n"


def reach(running, group):
    """The lines of a group's file."""
    path = f"/sys/kernel/iommu_groups/{group}/reach"
    return running.read(path).replace(" 0000:", " ").splitlines()


def said(running):
    """The kernel's news of what is reached."""
    return [line.replace("0000:", "") for line in news(running)
            if " past " in line]


def past(group, device, who, port, wrong="no ACS", refused=True):
    """The line of a claim of this group."""
    return (f"iommu: group {group}: {'refused: ' if refused else ''}{device} "
            f"({who}) can be reached past {port}: {wrong}")


def bound_past(device, group, port, wrong="no ACS", refused=True):
    """The line of the host's driver that binds."""
    return (f"virtio-pci {device}: {'refused: ' if refused else ''}group {group}, "
            f"which is owned, reaches it past {port}: {wrong}")


def claim(running, words, granted, lines):
    """One attempt, its answers and its lines."""
    said(running)
    found = claims(running, words)
    wanted = granted if isinstance(granted, list) else \
        ["0" if granted else EPERM] * len(found)
    assert found == wanted, f"{words}: {found}, not {wanted}: {said(running)}"
    lines_found = said(running)
    assert lines_found == lines, f"{words}: says {lines_found}, not {lines}"


def to_host(running, device):
    """Has the host's driver try it, and gives whether it is bound."""
    status, error = running.run(
        f"echo > /sys/bus/pci/devices/0000:{device}/driver_override; "
        f"echo 0000:{device} > /sys/bus/pci/drivers/virtio-pci/bind")
    assert not status or "busy" in error, error
    assert bool(status) != (driver(running, device) == "virtio-pci")
    return not status


def give_to_host(running, device):
    """For good, and it works."""
    running.wait(lambda: driver(running, device) == "virtio-pci",
                 f"the host's driver of {device}")
    status = running.sh(
        f"cat /sys/bus/pci/devices/0000:{device}/virtio*/status")
    assert status == "0x00000001\n", f"{device} answers {status}"


def on_switch(iommu, cmdline="", more=SWITCH, **options):
    return guest.Guest("switch", iommu, cmdline, TESTED, log="reach", more=more,
                       **options)


def remove_and_rescan(running, device):
    """Of a device and all that is below it; gives the groups without these."""
    running.sh(f"echo 1 > /sys/bus/pci/devices/0000:{device}/remove")
    left = running.groups()
    running.sh("echo 1 > /sys/bus/pci/rescan")
    return left


def other_owns(running):
    """What the host has is let go of, and the other device on the switch is owned."""
    unbind(running, HOST)
    bind(running, THERE)
    own(running, f"group {GROUP[THERE]}")


def insist(running, words, answer):
    """Claims it over and over, and lets go; gives how many lines are allowed."""
    before, *answers, after = running.sh(
        "cut -d ' ' -f 1 /proc/uptime; "
        f"for i in $(seq {ATTEMPTS}); do vfio-claim {words}; done; "
        "cut -d ' ' -f 1 /proc/uptime").splitlines()
    assert [line.split()[1] for line in answers] == [answer] * ATTEMPTS, answers
    return LINES * (1 + int((float(after) - float(before)) / INTERVAL))


def host_in_the_way(iommu, policy, by_option):
    """Refused or warned of while the host uses what is reached, then granted."""
    refuse = policy == "refuse"
    with on_switch(iommu, f"iommu.reach={policy}" if by_option else "") as running:
        if by_option:
            assert running.read(POLICY) == policy + "\n"
        else:
            set_policy(running, policy)
        bind(running, HERE)
        assert driver(running, HOST) == "virtio-pci"
        line = past(GROUP[HERE], HOST, "virtio-pci", PORT[HERE], refused=refuse)
        for way in WAYS:
            claim(running, to_own(running, way, HERE), not refuse, [line])
        if refuse:
            refused_as_shared(running, HERE)
        unbind(running, HOST)
        for way in WAYS:
            claim(running, to_own(running, way, HERE), True, [])
        if iommu == "intel":    # the one whose QEMU translates below a switch
            owned_as_whole(running, HERE, ALONE)
        assert to_host(running, HOST)
        give_to_host(running, HOST)


def warns_by_default(iommu):
    with on_switch(iommu) as running:
        assert running.read(POLICY) == "warn\n"
        mode = running.sh(f"stat -c %a {POLICY}")
        assert mode == "644\n", mode
        for before in POLICIES:
            set_policy(running, before)
            for wrong in WRONG_POLICIES:
                news(running)
                status, _ = running.run(f"printf '%s\\n' '{wrong}' > {POLICY}")
                assert status and running.read(POLICY) == before + "\n", wrong
                lines = [line for line in news(running) if "reach: " in line]
                assert len(lines) == 1 and \
                    f"iommu.reach: '{wrong}' is neither" in lines[0], lines
        # As programs write it that end no line
        running.sh(f"printf warn > {POLICY}")
        assert running.read(POLICY) == "warn\n"


def two_owners(iommu, policy):
    """Two processes, by the same way and by one each."""
    refuse = policy == "refuse"
    with on_switch(iommu, f"iommu.reach={policy}") as running:
        unbind(running, HOST)
        bind(running, f"{HERE} {THERE}")
        for first in WAYS:
            for second in WAYS:
                wanted = to_own(running, second, THERE)
                own(running, to_own(running, first, HERE))
                claim(running, wanted, not refuse,
                      [past(GROUP[THERE], HERE, "another owner", PORT[THERE],
                            refused=refuse)])
                end(running, "vfio-claim")
                claim(running, wanted, True, [])


def one_owner(iommu, cmdline, one, other):
    """A process with several containers or one, in either order."""
    with on_switch(iommu, f"iommu.reach=refuse {cmdline}") as running:
        unbind(running, HOST)
        bind(running, f"{one} {other}")
        for order in (one, other), (other, one):
            for together in "", "together ":
                for ways in WAYS, WAYS[::-1], WAYS[:1] * 2, WAYS[1:] * 2:
                    words = together + " ".join(
                        to_own(running, way, device)
                        for way, device in zip(ways, order))
                    claim(running, words, True, [])


def owner_above_acs(iommu):
    """One way only: what is below the port with ACS does not reach the other."""
    above, below = THERE, HERE
    with on_switch(iommu, f"iommu.reach=refuse pci=assume_acs={PORT[below]}") \
            as running:
        unbind(running, HOST)
        bind(running, f"{above} {below}")
        group = running.groups()[below]
        assert group == 0x300, "the port isolates now"
        own(running, f"group {group}")
        claim(running, f"group {GROUP[above]}", False,
              [past(GROUP[above], below, "another owner", PORT[above])])
        end(running, "vfio-claim")
        own(running, f"group {GROUP[above]}")
        claim(running, f"group {group}", False,
              [f"iommu: group {group}: refused: group {GROUP[above]} of another "
               f"owner reaches {below} past {PORT[above]}: no ACS"])
        end(running, "vfio-claim")
        claim(running, f"group {group}", True, [])


def assumed(iommu):
    """Both are the host's by turns, and one is below the port that is named."""
    named, other = HOST, LATE
    with on_switch(iommu, f"iommu.reach=refuse pci=assume_acs={PORT[named]}",
                   TWO_FOR_HOST) as running:
        warnings = [line for line in running.sh("dmesg -r").splitlines()
                    if "Assuming" in line]
        assert len(warnings) == 1 and warnings[0].startswith("<4>") and \
            PORT[named] in warnings[0] and "ACS" in warnings[0], warnings
        assert int(running.read("/proc/sys/kernel/tainted")) & 1 << 6
        groups = running.groups()
        assert groups[named] != groups[PORT[named]], groups
        assert reach(running, groups[named]) == []
        bind(running, named)
        claim(running, f"group {groups[named]}", True, [])
        unbind(running, named)
        assert to_host(running, named)
        bind(running, other)
        claim(running, f"group {groups[other]}", False,
              [past(groups[other], named, "virtio-pci", PORT[other])])


def idle_is_off(iommu):
    """An idle device that is reached by a function; on bus 0, for AMD's DMA."""
    port, below, edu, other = "00:03.0", "01:00.0", "00:03.3", "04:00.0"
    # So that its DMA gets to the other's memory, as by the reach that it is not
    with guest.Guest("root-ports", iommu, "iommu.passthrough=1", TESTED,
                     log="idle", more=BESIDE_PORTS[:1]) as running:
        bind(running, below)
        control = acs_control(running, port)
        set_word(running, port, control, word(running, port, control) | DT)
        set_word(running, other, COMMAND, MEMORY)
        set_word(running, edu, COMMAND, MEMORY | MASTER)
        must_be_on(running, edu)
        assert does_dma(running, edu, other)
        # Nobody is switched off who only is warned of.
        own(running, f"group {running.groups()[below]}")
        must_be_on(running, edu)
        assert does_dma(running, edu, other)
        end(running, "vfio-claim")
        set_policy(running, "refuse")
        own(running, f"group {running.groups()[below]}")
        must_be_on(running, edu, False)
        assert not does_dma(running, edu, other)
        # Nor if somebody could program it.
        set_word(running, edu, COMMAND, MEMORY)
        assert running.sh(f"pci-peek 0000:{edu}") == EDU
        assert not does_dma(running, edu, other)
        set_word(running, edu, COMMAND, 0)
        # A driver that leaves groups alone gets it; its owner does not.
        bind(running, edu)
        claim(running, f"group {running.groups()[edu]}", False,
              [past(running.groups()[edu], below, "another owner", edu)])
        end(running, "vfio-claim")
        owned_as_whole(running, edu, NO_RESET | ALONE)
        set_word(running, edu, COMMAND, MEMORY | MASTER)
        assert does_dma(running, edu, other)


def idle_below_switch_is_off(iommu):
    """And comes back by itself for the host's driver."""
    with on_switch(iommu, "iommu.reach=refuse") as running:
        unbind(running, HOST)
        bind(running, HERE)
        for device in THERE, HOST:
            set_word(running, device, COMMAND, MEMORY | MASTER)
        must_be_on(running, THERE)
        own(running, f"group {GROUP[HERE]}")
        for device in THERE, HOST:
            must_be_on(running, device, False)
        end(running, "vfio-claim")
        assert to_host(running, HOST)
        give_to_host(running, HOST)
        if iommu == "intel":
            unbind(running, HOST)
            bind(running, THERE)
            owned_as_whole(running, THERE, ALONE)


def enabled_is_in_the_way(iommu):
    """Without a driver, but somebody has enabled it: it is not switched off."""
    enable = f"/sys/bus/pci/devices/0000:{THERE}/enable"
    with on_switch(iommu, "iommu.reach=refuse") as running:
        unbind(running, HOST)
        bind(running, HERE)
        running.sh(f"echo 1 > {enable}")
        claim(running, f"group {GROUP[HERE]}", False,
              [past(GROUP[HERE], THERE, "cannot be switched off", PORT[HERE])])
        assert word(running, THERE, COMMAND) & MEMORY
        running.sh(f"echo 0 > {enable}")
        claim(running, f"group {GROUP[HERE]}", True, [])


def two_in_the_way(iommu):
    """Of several that are in the way of a claim, the log names one."""
    with on_switch(iommu, more=TWO_FOR_HOST) as running:
        bind(running, HERE)
        claim(running, f"group {GROUP[HERE]}", True,
              [past(GROUP[HERE], LATE, "virtio-pci", PORT[HERE], refused=False)])


def two_reach_it(iommu, refuse):
    """Of several owned groups of others that reach it, too.

    It is viable as well, as one process has both of them.
    """
    policy = "iommu.reach=refuse " if refuse else ""
    with on_switch(iommu, f"{policy}pci=assume_acs={PORT[HERE]}") as running:
        unbind(running, HOST)
        bind(running, f"{HERE} {THERE} {HOST}")
        group = running.groups()[HERE]
        own(running, f"group {GROUP[THERE]} group {GROUP[HOST]}")
        assert claims(running, f"viable {group}") == ["0"]
        claim(running, f"group {group}", not refuse,
              [f"iommu: group {group}: {'refused: ' if refuse else ''}group "
               f"{GROUP[THERE]} of another owner reaches {HERE} past {PORT[THERE]}: "
               "no ACS"])


def binds_later(iommu, policy, way):
    """A driver of the host that wants what an owned group reaches."""
    refuse = policy == "refuse"
    with on_switch(iommu, f"iommu.reach={policy}") as running:
        unbind(running, HOST)
        bind(running, HERE)
        own(running, to_own(running, way, HERE))
        # What counts is the policy when it was claimed.
        set_policy(running, "warn" if refuse else "refuse")
        said(running)
        assert to_host(running, HOST) != refuse
        lines = said(running)
        assert lines == [bound_past(HOST, GROUP[HERE], PORT[HERE],
                                    refused=refuse)], lines
        end(running, "vfio-claim")
        give_to_host(running, HOST)


def reached_by_two(iommu):
    """The log names the one that was owned first."""
    with on_switch(iommu) as running:
        unbind(running, HOST)
        bind(running, f"{HERE} {THERE}")
        own(running, f"group {GROUP[HERE]} group {GROUP[THERE]}")
        said(running)
        assert to_host(running, HOST)
        lines = said(running)
        assert lines == [bound_past(HOST, GROUP[HERE], PORT[HERE], refused=False)], lines


def arrives_later(iommu, again):
    """A device that is hot-added, or found again, where an owned group reaches it."""
    with on_switch(iommu, "iommu.reach=refuse", TWO_FOR_HOST if again else SWITCH,
                   bind=False) as running:
        for device in (HOST, LATE) if again else (HOST,):
            unbind(running, device)
        bind(running, HERE)
        own(running, f"group {GROUP[HERE]}")
        said(running)
        if again:
            assert LATE not in remove_and_rescan(running, LATE)
        else:
            running.device_add("virtio-rng-pci", id="late", bus="dn3", addr="0.0")
        lines = []
        running.wait(lambda: lines.extend(said(running)) or lines, "a line")
        assert lines == [bound_past(LATE, GROUP[HERE], PORT[HERE])], lines
        assert not driver(running, LATE), driver(running, LATE)
        assert word(running, LATE, COMMAND) & (MEMORY | MASTER) == 0
        end(running, "vfio-claim")
        give_to_host(running, LATE)
        claim(running, f"group {GROUP[HERE]}", False,
              [past(GROUP[HERE], LATE, "virtio-pci", PORT[HERE])])


def vf_arrives(iommu):
    """A Virtual Function that comes where an owned group reaches it: its memory cannot
    be switched off alone."""
    with on_switch(iommu, "iommu.reach=refuse", [*SWITCH, *NVME, *BESIDE_SWITCH]) as running:
        unbind(running, HOST)
        running.sh("echo 1 > /sys/module/vfio_pci/parameters/enable_sriov")
        bind(running, LATE)
        bind(running, HERE)
        own(running, f"group {GROUP[HERE]}")
        said(running)
        running.sh(f"cd /sys/bus/pci/devices/0000:{LATE}; "
                   "echo 0 > sriov_drivers_autoprobe; echo 1 > sriov_numvfs")
        lines = said(running)
        assert lines == [past(GROUP[HERE], "06:00.1", "cannot be switched off", PORT[HERE],
                              refused=False)], lines
        remove_and_rescan(running, APART)
        assert not said(running), "the same once more, as another device comes"


def arrives_without_group(iommu):
    """The same where nothing has a group that no driver wants."""
    with on_switch(iommu, "iommu.reach=refuse", bind=False) as running:
        unbind(running, HOST)
        bind(running, HERE)
        owner = f"group {GROUP[HERE]}"
        own(running, owner)
        running.device_add("edu", id="late", bus="dn3", addr="0.0")
        running.wait(lambda: LATE in running.groups(), "the late device")
        assert running.groups()[LATE] is None, running.groups()
        must_be_on(running, LATE, False)
        assert f"- switch {PORT[HERE]} {LATE}" in reach(running, GROUP[HERE])
        end(running, "vfio-claim")
        set_word(running, LATE, COMMAND, MEMORY | MASTER)
        must_be_on(running, LATE)
        own(running, owner)
        must_be_on(running, LATE, False)
        end(running, "vfio-claim")
        bind(running, LATE)
        claim(running, f"group {GROUP[LATE]} {owner}", True, [])


def without_group(iommu):
    """Where groups come with drivers: what has none is off, or in the way."""
    with on_switch(iommu, "iommu.reach=refuse", bind=False) as running:
        unbind(running, HOST)
        bind(running, HERE)
        assert running.groups()[THERE] is None
        assert f"- switch {PORT[HERE]} {THERE}" in reach(running, GROUP[HERE])
        set_word(running, THERE, COMMAND, MEMORY | MASTER)
        own(running, f"group {GROUP[HERE]}")
        assert word(running, THERE, COMMAND) & (MEMORY | MASTER) == 0
        end(running, "vfio-claim")
        running.sh(f"echo 1 > /sys/bus/pci/devices/0000:{THERE}/enable")
        claim(running, f"group {GROUP[HERE]}", False,
              [past(GROUP[HERE], THERE, "cannot be switched off", PORT[HERE])])


# What of a Root Port's ACS is switched, and what the line says of it; that of
# Source Validation alone makes no reach.
SWITCHED = ((RR | CR | UF, 0, "ACS off: RR CR UF"), (RR, 0, "ACS off: RR"),
            (UF, 0, "ACS off: UF"), (0, DT, "DT on"),
            (CR, DT, "ACS off: CR, DT on"), (SV, 0, None))


def acs_switched(iommu, policy):
    """By a write between two claims, and back again."""
    refuse = policy == "refuse"
    port, device, host = "00:03.0", "01:00.0", "03:00.0"
    with guest.Guest("root-ports", iommu, f"iommu.reach={policy}", TESTED,
                     log="acs", more=BESIDE_PORTS[1:]) as running:
        bind(running, device)
        group = running.groups()[device]
        groups = running.groups()
        owner = to_own(running, WAYS[refuse], device)
        control = acs_control(running, port)
        before = word(running, port, control)
        assert before & (SV | RR | CR | UF) == SV | RR | CR | UF, before
        claim(running, owner, True, [])
        for off, on, wrong in SWITCHED:
            set_word(running, port, control, before & ~off | on)
            if wrong is None:
                claim(running, owner, True, [])
            else:
                claim(running, owner, not refuse,
                      [past(group, host, "virtio-pci", port, wrong, refuse)])
            set_word(running, port, control, before)
            claim(running, owner, True, [])
            # The kernel says no more than so much in 5 seconds.
            running.sh("sleep 1")
        assert running.groups() == groups, running.groups()


def ports_lost_acs(iommu, policy):
    """Two ports that do not isolate any more would share a group: that is late."""
    ports, device, host = ("00:03.0", "00:03.2"), "01:00.0", "03:00.0"
    with guest.Guest("root-ports", iommu, f"iommu.reach={policy}", TESTED,
                     log="lost", more=BESIDE_PORTS[1:]) as running:
        bind(running, device)
        groups = running.groups()
        before = {port: word(running, port, acs_control(running, port))
                  for port in ports}
        for port in ports:
            set_word(running, port, acs_control(running, port), 0)
        for way in WAYS:
            claim(running, to_own(running, way, device), False,
                  [past(groups[device], host, "virtio-pci", device,
                        "tied late")])
        assert f"{groups[host]} late {device} {host}" in \
            reach(running, groups[device])
        assert running.groups() == groups, running.groups()
        for port in ports:
            set_word(running, port, acs_control(running, port), before[port])
        claim(running, f"group {groups[device]}", True, [])


def functions_of_owners(iommu, policy):
    """Two functions of one device, of which only one is kept from the other."""
    refuse = policy == "refuse"
    open_one, kept = "00:04.3", "00:04.0"
    with guest.Guest("e1000e", iommu, f"iommu.reach={policy}", TESTED,
                     log="functions", more=["edu,bus=pcie.0,addr=4.3"]) \
            as running:
        bind(running, f"{open_one} {kept}")
        own(running, "group 32")
        claim(running, "group 35", not refuse,
              [past(35, kept, "another owner", open_one, refused=refuse)])
        end(running, "vfio-claim")
        own(running, "group 35")
        claim(running, "group 32", not refuse,
              [f"iommu: group 32: {'refused: ' if refuse else ''}group 35 of "
               f"another owner reaches {kept} past {open_one}: no ACS"])
        end(running, "vfio-claim")
        claim(running, "group 32 group 35", True, [])
        owned_as_whole(running, open_one, NO_RESET | ALONE)


def function(iommu, policy):
    """One without ACS beside ports that have it, and below one is the host's."""
    refuse = policy == "refuse"
    edu, host = "00:03.3", "03:00.0"
    with guest.Guest("root-ports", iommu, f"iommu.reach={policy}", TESTED,
                     log="function", more=BESIDE_PORTS) as running:
        bind(running, edu)
        group = running.groups()[edu]
        assert group == 0x1b, running.groups()
        assert f"768 function {edu} {host}" in reach(running, group)
        assert reach(running, 768) == []
        for way in WAYS:
            claim(running, to_own(running, way, edu), not refuse,
                  [past(group, host, "virtio-pci", edu, refused=refuse)])
        unbind(running, host)
        owned_as_whole(running, edu, NO_RESET | ALONE)


def files(name, iommu, more, expected):
    """What each group reaches; those that are not named reach nothing."""
    with guest.Guest(name, iommu, kernel=TESTED, log="reach-file",
                     more=more) as running:
        for group in members(running):
            path = f"/sys/kernel/iommu_groups/{group}/reach"
            mode = running.sh(f"stat -c %a {path}")
            assert mode == "400\n", f"{path}: {mode}"
            lines = reach(running, group)
            assert lines == expected.get(group, []), f"{group}: {lines}"


SWITCH_FILES = {
    GROUP[one]: [f"{GROUP[other]} switch {PORT[one]} {other}"
                 for other in (HERE, THERE, HOST) if other != one]
    for one in (HERE, THERE, HOST)}
SWITCH_FILES[GROUP[LATE]] = [f"{GROUP[other]} switch {PORT[LATE]} {other}"
                             for other in (HERE, THERE, HOST)]
# Of the nested switches it does not matter which port it is past; each has a
# group on the other side of the upper one, and no more.
FILES = (("switch", SWITCH, SWITCH_FILES),
         ("e1000e", ["edu,bus=pcie.0,addr=4.3"],
          {35: [f"{32 + nth} function 00:04.3 00:04.{nth}"
                for nth in range(3)]}),
         ("demo", [], {
             1024: ["1032 switch 04:00.0 06:00.0"],
             1032: ["1024 switch 04:01.0 05:00.0"]}),
         ("multifunction", [], {}),
         ("root-ports", [], {}))


def virtual_functions(iommu):
    """A port that lost its ACS since has what is found below it in its group."""
    def found(kernel):
        with guest.Guest("sriov", iommu, kernel=kernel, log="lost-acs") as running:
            number = "/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs"
            running.sh(f"echo 0 > {number}")
            set_word(running, "00:03.0", acs_control(running, "00:03.0"), 0)
            running.sh(f"echo 4 > {number}")
            if iommu == "virtio":
                running.sh(guest.BIND_ALL)
            return running.groups()

    groups = found(TESTED)
    for nth in range(1, 5):
        assert groups[f"01:00.{nth}"] == groups["00:03.0"], groups
    same_groups(partition(groups), partition(found("stock")))


def selftests(iommu):
    """Those of the series; what is tied late is in late.py."""
    with on_switch(iommu) as running:
        unbind(running, HOST)
        bind(running, f"{HERE} {THERE}")
        # What is not named are the late ones.
        kselftest(running, "vfio_reach",
                  {"VFIO_REACH_ONE": HERE, "VFIO_REACH_OTHER": THERE},
                  options=" ".join(f"-v {policy}_{ways}" for policy in POLICIES
                                   for ways in SELFTEST))


def selftest_of_host(iommu):
    """That of a driver of the host which is in the way, or comes later."""
    with on_switch(iommu) as running:
        bind(running, HERE)
        kselftest(running, "vfio_reach",
                  {"VFIO_REACH_HOST": HOST, "VFIO_REACH_TO_HOST": HERE},
                  options="-f host")
        assert driver(running, HOST) == "virtio-pci"


def selftest_of_acs(iommu):
    """That of a port which has ACS, as it is at each claim."""
    with guest.Guest("root-ports", iommu, "", TESTED, log="acs-selftest",
                     more=BESIDE_PORTS[1:]) as running:
        bind(running, "01:00.0 03:00.0")
        kselftest(running, "vfio_reach",
                  {"VFIO_REACH_PORT": "00:03.0", "VFIO_REACH_BELOW": "01:00.0",
                   "VFIO_REACH_BESIDE": "03:00.0"}, options="-f acs")


def nothing_is_reported(iommu):
    """By the kernel that looks for bugs, of claims and binds that meet."""
    with guest.Guest("switch", iommu, "iommu.reach=refuse kmemleak=off",
                     kernel="debug", log="reach-debug", more=SWITCH,
                     acpi_hotplug=False) as running:
        unbind(running, HOST)
        bind(running, f"{HERE} {THERE}")
        kselftest(running, "vfio_reach",
                  {"VFIO_REACH_ONE": HERE, "VFIO_REACH_OTHER": THERE},
                  options="-v refuse_container_then_iommufd")
        own(running, to_own(running, "iommufd", HERE))
        said(running)
        assert not to_host(running, HOST)
        assert said(running) == [bound_past(HOST, GROUP[HERE], PORT[HERE])]
        end(running, "vfio-claim")
        give_to_host(running, HOST)
        claim(running, f"group {GROUP[HERE]}", False,
              [past(GROUP[HERE], HOST, "virtio-pci", PORT[HERE])])


def left_alone(iommu):
    """Whoever gave a refused device to another driver meanwhile has decided."""
    with on_switch(iommu, "iommu.reach=refuse", TWO_FOR_HOST) as running:
        for device in HOST, LATE:
            unbind(running, device)
        bind(running, HERE)
        own(running, to_own(running, "container", HERE))
        for device in HOST, LATE:
            assert not to_host(running, device), device
        bind(running, HOST)
        unbind(running, HOST)
        running.sh(f"echo > /sys/bus/pci/devices/0000:{HOST}/driver_override")
        end(running, "vfio-claim")
        # This one comes after it, so that one was thought of by then.
        give_to_host(running, LATE)
        assert not driver(running, HOST), driver(running, HOST)


def found_again(iommu):
    """What it reaches and who is refused is as before, also beside an owner."""
    with on_switch(iommu, "iommu.reach=refuse") as running:
        files = {group: reach(running, group) for group in members(running)}
        assert files[GROUP[HERE]] and files[GROUP[THERE]], files
        # A device, its port, and the switch
        for gone in HERE, PORT[HERE], "01:00.0":
            all_are_gone = gone == "01:00.0"
            if not all_are_gone:
                other_owns(running)
            left = remove_and_rescan(running, gone)
            assert gone not in left and HERE not in left
            found = {group: reach(running, group) for group in members(running)}
            assert found == files, f"{gone}: {found}, not {files}"
            if all_are_gone:
                other_owns(running)
            bind(running, HERE)
            claim(running, f"group {GROUP[HERE]}", False,
                  [past(GROUP[HERE], THERE, "another owner", PORT[HERE])])
            end(running, "vfio-claim")
            claim(running, f"group {GROUP[HERE]}", True, [])
            own(running, f"group {GROUP[HERE]}")
            claim(running, f"group {GROUP[THERE]}", False,
                  [past(GROUP[THERE], HERE, "another owner", PORT[THERE])])
            end(running, "vfio-claim")
            assert to_host(running, HOST)


def nobody_floods(iommu, policy, way):
    """Who claims over and over has some lines, and another group's claim its own."""
    refuse = policy == "refuse"
    with on_switch(iommu, f"iommu.reach={policy}") as running:
        bind(running, f"{HERE} {THERE}")
        said(running)
        allowed = insist(running, to_own(running, way, HERE), EPERM if refuse else "0")
        if allowed >= ATTEMPTS:
            raise Skip("this machine is too busy to tell")
        lines = said(running)
        assert set(lines) == {past(GROUP[HERE], HOST, "virtio-pci", PORT[HERE],
                                   refused=refuse)}, lines
        assert len(lines) <= allowed, f"{len(lines)} lines, not {allowed}"
        claim(running, to_own(running, way, THERE), not refuse,
              [past(GROUP[THERE], HOST, "virtio-pci", PORT[THERE], refused=refuse)])


def owners_keep_no_line(iommu):
    """Who has a device of an owned group claims it in vain, over and over."""
    one, other, host, group = "05:00.0", "06:00.0", "08:00.0", 512
    more = ["xio3130-downstream,id=dn4,bus=up0,addr=2.0,chassis=6,slot=6",
            "virtio-rng-pci,bus=dn4,addr=0.0"]
    with guest.Guest("nested-switches", iommu, "iommu.reach=refuse", TESTED,
                     log="owner-lines", more=more) as running:
        unbind(running, host)
        bind(running, f"{one} {other}")
        own(running, to_own(running, "iommufd", one))
        insist(running, to_own(running, "iommufd", other), EPERM)
        said(running)
        assert not to_host(running, host)
        lines = said(running)
        assert lines == [bound_past(host, group, "02:00.0")], lines
        end(running, "vfio-claim")
        give_to_host(running, host)


def retries_are_silent(iommu):
    """Who is refused has a line, however often others let go of what is not his."""
    with on_switch(iommu, "iommu.reach=refuse", TWO_FOR_HOST + BESIDE_SWITCH) as running:
        for device in HOST, LATE:
            unbind(running, device)
        bind(running, f"{HERE} {APART}")
        own(running, to_own(running, "container", HERE))
        said(running)
        assert not to_host(running, HOST)
        lines = said(running)
        assert lines == [bound_past(HOST, GROUP[HERE], PORT[HERE])], lines
        insist(running, to_own(running, "iommufd", APART), "0")
        # Drivers are tried again some time after the release.
        running.sh("sleep 1")
        lines = said(running)
        assert not lines, f"{len(lines)} lines: {lines[:2]}"
        # A person who tries again has one.
        assert not to_host(running, HOST)
        lines = said(running)
        assert lines == [bound_past(HOST, GROUP[HERE], PORT[HERE])], lines
        assert not to_host(running, LATE)
        lines = said(running)
        assert lines == [bound_past(LATE, GROUP[HERE], PORT[HERE])], lines
        end(running, "vfio-claim")
        for device in HOST, LATE:
            give_to_host(running, device)


def states(iommu):
    """Who has each group, while it changes hands."""
    with on_switch(iommu) as running:
        path = "/sys/kernel/iommu_groups/{}/state"
        mode = running.sh(f"stat -c %a {path.format(GROUP[HERE])}")
        assert mode == "400\n", mode

        def must_be(**wanted):
            found = {name: running.read(path.format(GROUP[device])).rstrip("\n")
                     for name, device in (("here", HERE), ("there", THERE),
                                          ("host", HOST))}
            assert found == wanted, found

        must_be(here="idle", there="idle", host="host")
        bind(running, f"{HERE} {THERE}")
        must_be(here="idle", there="idle", host="host")
        for way in WAYS:
            own(running, to_own(running, way, HERE))
            must_be(here="owned", there=f"reached {GROUP[HERE]}", host="host")
            unbind(running, HOST)
            must_be(here="owned", there=f"reached {GROUP[HERE]}",
                    host=f"reached {GROUP[HERE]}")
            end(running, "vfio-claim")
            assert to_host(running, HOST)
            must_be(here="idle", there="idle", host="host")
        own(running, f"group {GROUP[HERE]} group {GROUP[THERE]}")
        unbind(running, HOST)
        must_be(here="owned", there="owned",
                host=f"reached {GROUP[HERE]} {GROUP[THERE]}")


def cases():
    for nth, iommu in enumerate(VENDORS_ALIKE):
        yield (f"{iommu}: a driver of the host that binds what two owned groups reach "
               "has one line", reached_by_two, iommu)
        yield (f"{iommu}: a claim has one line where two of the host's devices are in "
               "the way", two_in_the_way, iommu)
        yield (f"{iommu}: a claim has one line where two groups of another owner reach "
               "the group", two_reach_it, iommu, False)
        yield (f"{iommu}: a group is viable where one process has all that reach it",
               two_reach_it, iommu, True)
        for policy in some(POLICIES, nth):
            for by_option in True, False:
                how = f"iommu.reach={policy}" if by_option else \
                    f"{policy} written to {POLICY}"
                yield (f"{iommu}, {how}: a device that reaches one that the "
                       "host uses is "
                       + ("refused until the host lets go" if policy == "refuse"
                          else "granted with a line, and without one then"),
                       host_in_the_way, iommu, policy, by_option)
            yield (f"{iommu}, {policy}: two processes, by container and by "
                   "iommufd, with devices that reach each other",
                   two_owners, iommu, policy)
            for way in WAYS:
                yield (f"{iommu}, {policy}, {way}: who claims over and over what is "
                       f"{'refused' if policy == 'refuse' else 'warned of'} has some "
                       "lines and not all, and another group's claim has its line",
                       nobody_floods, iommu, policy, way)
                yield (f"{iommu}, {policy}, {way}: a driver of the host that "
                       "binds what an owned group reaches "
                       + ("is refused, and bound after its release"
                          if policy == "refuse" else "is bound, with a line"),
                       binds_later, iommu, policy, way)
            yield (f"{iommu}, {policy}: ACS that is switched off between two "
                   "claims counts, and the line says what is off",
                   acs_switched, iommu, policy)
            yield (f"{iommu}, {policy}: what is below two ports that lost their "
                   "ACS is for one owner", ports_lost_acs, iommu, policy)
            yield (f"{iommu}, {policy}: a function without ACS and one that is "
                   "isolated, with an owner each", functions_of_owners, iommu,
                   policy)
            yield (f"{iommu}, {policy}: a function without ACS reaches those "
                   "beside it and what is below them", function, iommu, policy)
        yield (f"{iommu}: a device that was refused and had another driver since is "
               "not bound by itself", left_alone, iommu)
        yield (f"{iommu}: a device, its port or the switch is removed and found again, and "
               "who reaches it and is refused is as before", found_again, iommu)
        yield (f"{iommu}: a driver of the host that is refused has its line, however often "
               "the owned group is claimed in vain", owners_keep_no_line, iommu)
        yield (f"{iommu}: a driver that was refused is not told again when an "
               "unrelated owner lets go, over and over, and another's refusal has its "
               "line", retries_are_silent, iommu)
        yield (f"{iommu}: the file state says who has a group, and who reaches it",
               states, iommu)
        yield (f"{iommu}: warn is the default, a wrong word changes nothing and is "
               "quoted", warns_by_default, iommu)
        yield (f"{iommu}: one process owns two groups that reach each other, in "
               "one container or two, in either order", one_owner, iommu, "",
               HERE, THERE)
        yield (f"{iommu}: one process owns what is below a port with ACS and "
               "what reaches it, in either order", one_owner, iommu,
               f"pci=assume_acs={PORT[HERE]}", HERE, THERE)
        yield (f"{iommu}: a second process is refused what reaches the first "
               "one's, and what the first one's reaches", owner_above_acs, iommu)
        yield (f"{iommu}: pci=assume_acs= counts for what is below that port, "
               "and not the other way round", assumed, iommu)
        yield (f"{iommu}: an idle function that is reached is off under refuse, "
               "does no DMA, and does it for its owner afterwards", idle_is_off,
               iommu)
        yield (f"{iommu}: idle devices behind a switch are off under refuse, and "
               "work for their drivers afterwards", idle_below_switch_is_off,
               iommu)
        yield (f"{iommu}: a Virtual Function that comes where an owned group reaches it "
               "has its line, once", vf_arrives, iommu)
        yield (f"{iommu}: an idle device that somebody enabled is in the way",
               enabled_is_in_the_way, iommu)
        yield (f"{iommu}: selftests/vfio find reach as it is", selftests, iommu)
        yield (f"{iommu}: selftests/vfio find a driver of the host in the way, and "
               "bound later", selftest_of_host, iommu)
        yield (f"{iommu}: selftests/vfio find that ACS counts as it is at the claim",
               selftest_of_acs, iommu)
        for name, more, expected in FILES:
            yield (f"{name}, {iommu}: each group's reach file has what it "
                   "reaches, for root", files, name, iommu, more, expected)
    for iommu in some(VENDORS):
        yield (f"{iommu}, debug: claims and binds that meet, and nothing is "
               "reported", nothing_is_reported, iommu)
    for iommu in (*VENDORS, "virtio"):
        for again in False, True:
            yield (f"{iommu}: a device that is "
                   f"{'removed and found again' if again else 'hot-added'} in reach is "
                   "off, and bound after the release", arrives_later, iommu, again)
        yield (f"{iommu}: virtual functions below a port that lost its ACS are in "
               "its group, as on stock", virtual_functions, iommu)
    if guest.BY_DRIVER:     # else none is without a group
        yield ("virtio: a device without a group that is hot-added in reach is off "
               "while it is reached", arrives_without_group, "virtio")
        yield ("virtio: a device without a group is off or in the way",
               without_group, "virtio")
