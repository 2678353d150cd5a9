# SPDX-License-Identifier: GPL-2.0-only
"""Refusals: the kernel's log, lsiommu's first line and the admin guide's table of
symptoms have the same words for each.

The table is that of build/linux. Of a line of it, <what> stands for a name.
"""
import re

import acpi
import guest
from fixtures import TESTED, PLAIN, THIRD_PORT, UNBOUND, X86_IOMMUS, Skip, \
    acs_control, bind, claims, end, news, own, printed, set_word, unbind, vfio_name, word
from where import BUILD

NEEDS = "guest"
GUIDE = BUILD / "linux/Documentation/admin-guide/iommu-groups.rst"

EPERM, EBUSY, EINVAL = "1", "16", "22"
# Of ACS: P2P Request Redirect, Completion Redirect, Upstream Forwarding
REDIRECT = 0x04 | 0x08 | 0x10

# A group of machines/multifunction with a device that the host uses.
FIRST, SECOND, USED = "01:00.0", "01:00.2", "01:00.3"
GROUP = ["virtio-rng-pci,bus=rp0,addr=0.3"]
APART = "02:00.0"       # and one that is in another group

FIRMWARES = "00:06.0"   # of machines/no-unit

# One more port of machines/switch, below which is a device that the host uses.
SWITCH = [THIRD_PORT, "virtio-rng-pci,bus=dn2,addr=0.0"]
HERE, THERE, HOST = "03:00.0", "04:00.0", "05:00.0"
PORT = "02:00.0"        # above the first

ON_DRIVER = "<device> is on <driver>"
OWNED = "it has an owner"
OPEN = "somebody has it open"
ONE_TO_ONE = "Firmware has requested this device have a 1:1 IOMMU mapping"
PAST = "<device> (<user>) can be reached past <port>: no ACS"
INTO = "group <N> of another owner reaches <device> past <port>: no ACS"
ACS_OFF = "<device> (<user>) can be reached past <port>: ACS off: <bits>"
LATE = "<device> (<user>) can be reached past <member>: tied late"
NO_IOMMU = "firmware describes no IOMMU"
OFF = "the IOMMU is off by <option>"
NOT_IN_USE = "firmware describes an IOMMU (<table>), but none is in use"
NO_UNIT = "no IOMMU covers it"
REFUSED = "its IOMMU's driver refused it"

# What comes before these words in the log, and in lsiommu's first line.
LOG = {**dict.fromkeys((ON_DRIVER, OWNED, PAST, INTO, ACS_OFF, LATE),
                       "iommu: group {group}: refused: "),
       OPEN: "vfio {group}: refused: ", ONE_TO_ONE: r"\S+ {device}: ",
       **dict.fromkeys((NO_IOMMU, OFF, NOT_IN_USE), "iommu: No groups so far: "),
       NO_UNIT: r"\S+ {device}: No group: ",
       UNBOUND: r"iommu: \d+ PCI devices have no group so far: "
                + ("each " if guest.BY_DRIVER else "for each, "),
       REFUSED: r"\S+ {device}: Failed to add to an iommu group: "}
TOOL = {**dict.fromkeys((ON_DRIVER, OWNED, OPEN, ONE_TO_ONE, PAST, INTO, ACS_OFF,
                         LATE),
                        "Group {group}: cannot be owned: "),
        **dict.fromkeys((NO_IOMMU, OFF, NOT_IN_USE, NO_UNIT), "No group: "),
        UNBOUND: "No group: " + ("it " if guest.BY_DRIVER else ""),
        REFUSED: "No group: (?:no IOMMU covers it, or )?"}


def table():
    """The first column of the table of symptoms: what is quoted in it alone."""
    if not GUIDE.exists():
        raise Skip("this kernel's documentation has no table of symptoms")
    text = GUIDE.read_text().split("* - What is seen")[1].split("\n\n")[0]
    return re.findall(r"^ +\* - ``([^`]*)``$", text, re.MULTILINE)


def pattern(symptom):
    """A line of the table, to be looked for. No name has a colon and a blank."""
    assert table().count(symptom) == 1, f"not in the table: {symptom}"
    return "".join(r"(?:(?!: )[^;()])+?" if part.startswith("<")
                   else re.escape(part)
                   for part in re.split(r"(<\w+>)", symptom))


def log(running):
    """What the kernel has said since the last news."""
    return "\n".join(printed(running))


def same_words(running, symptom, device, group=None):
    """Log and lsiommu have the symptom, and the same names in it.

    The log has the first that is in the way, lsiommu all.
    """
    # Where there are no groups that is said before.
    tool = re.sub(r"\n {4}(?=\S)", " ", running.sh(f"lsiommu {device}"))
    found = []
    for before, text in ((LOG[symptom], log(running)),
                         (TOOL[symptom], tool.split("\n\n")[-1].splitlines()[0])):
        before = before.format(group=group, device=re.escape("0000:" + device))
        heads = re.finditer(f"^{before}(.*)$", text, re.MULTILINE)
        found.append([words for head in heads for words in head[1].split("; ")
                      if re.match(pattern(symptom) + "(?=[:,]|$)", words)])
        assert found[-1], f"no '{before}{symptom}' in:\n{text[-3000:]}"
    said = re.match(pattern(symptom) + "(?=[:,]|$)", found[0][-1])[0]
    assert any(words.startswith(said) for words in found[1]), \
        f"the log: {said}, lsiommu: {found[1]}"


def refused(running, symptom, device, words=None, error=EPERM):
    """The claim of its group is refused, and in the same words."""
    group = running.groups()[device]
    news(running)
    assert claims(running, words or f"group {group}") == [error]
    same_words(running, symptom, device, group)


def granted(running, device):
    """No word of refusal in either."""
    group = running.groups()[device]
    news(running)
    assert claims(running, f"group {group}") == ["0"]
    assert not [line for line in news(running) if "refused" in line]
    first = running.sh(f"lsiommu {device}").splitlines()[0]
    assert first == f"Group {group}: can be owned", first


def booted(name, iommu, cmdline=PLAIN, **options):
    if iommu == "virtio":
        cmdline = f"{cmdline} {guest.UNSAFE}".strip()
    return guest.Guest(name, iommu, cmdline, TESTED, log="refusals", **options)


def host_driver(iommu):
    """By a group, and no longer once the driver is unbound."""
    with booted("multifunction", iommu, more=GROUP) as running:
        bind(running, FIRST)
        refused(running, ON_DRIVER, FIRST)
        unbind(running, USED)
        granted(running, FIRST)


def other_owner(iommu):
    """Of another device of the group, by an iommufd each."""
    with booted("multifunction", iommu) as running:
        bind(running, f"{FIRST} {SECOND}")
        own(running, f"device {vfio_name(running, FIRST)}")
        refused(running, OWNED, SECOND, f"device {vfio_name(running, SECOND)}")
        end(running, "vfio-claim")
        granted(running, SECOND)


def open_already(iommu):
    """The group by its file or a device of it by its own: a line for each way in.

    Who has the file open and no more is in the way, and lsiommu says so, of others
    than itself. Of a device's file only who owns by it is.
    """
    with booted("multifunction", iommu) as running:
        bind(running, f"{FIRST} {SECOND}")
        group = running.groups()[FIRST]
        line = f"vfio {group}: refused: somebody has it open"
        by_group, by_device = f"group {group}", f"device {vfio_name(running, FIRST)}"
        for owner in (by_group, by_device):
            own(running, owner)
            news(running)
            status, said = running.run(f": <>/dev/vfio/{group}")
            assert status and "Device or resource busy" in said, said
            assert line in printed(running)
            if owner is by_group:
                assert claims(running, by_device) == [EBUSY]
                assert line in printed(running)
            end(running, "vfio-claim")
        granted(running, FIRST)
        running.sh(f"sleep 9999 </dev/vfio/{group} >/dev/null 2>&1 &")
        refused(running, OPEN, FIRST, by_device, EBUSY)
        news(running)
        status, said = running.run(f": <>/dev/vfio/{group}")
        assert status and "Device or resource busy" in said, said
        same_words(running, OPEN, FIRST, group)
        end(running, "sleep")
        said = running.sh(f"exec lsiommu {FIRST} </dev/vfio/{group}").splitlines()[0]
        assert said == f"Group {group}: can be owned", said
        running.sh(f"sleep 9999 </dev/vfio/devices/{by_device.split()[1]} "
                   ">/dev/null 2>&1 &")
        granted(running, FIRST)
        end(running, "sleep")


def firmware_uses(iommu):
    """Its device, by a table that says so."""
    with booted("no-unit", iommu) as running:
        bind(running, FIRMWARES)
        for words in (None, f"device {vfio_name(running, FIRMWARES)}"):
            refused(running, ONE_TO_ONE, FIRMWARES, words, EINVAL)


def open_twice(iommu):
    """A device by its own file, by two processes; and who insists floods nobody."""
    line = "vfio-pci 0000:{}: refused: somebody has it open"
    with booted("multifunction", iommu) as running:
        bind(running, f"{FIRST} {SECOND} {APART}")
        names = {device: vfio_name(running, device) for device in (FIRST, APART)}
        own(running, f"device {names[FIRST]} device {names[APART]}")
        for times, device in (1, FIRST), (30, FIRST), (1, APART):
            news(running)
            # In one process, so that it takes no time.
            assert claims(running, "device " + f"{names[device]} " * times) == \
                [EINVAL] * times
            lines = [text for text in news(running) if "refused" in text]
            assert set(lines) == {line.format(device)}, f"{times} times: {lines}"
            assert len(lines) == 1 if times == 1 else len(lines) <= 10, lines
        end(running, "vfio-claim")
        granted(running, FIRST)


def host_driver_refused(iommu):
    """While the group that its device is in has an owner; the log says so, and whose."""
    with booted("multifunction", iommu, more=GROUP) as running:
        bind(running, FIRST)
        unbind(running, USED)
        group = running.groups()[FIRST]
        own(running, f"group {group}")
        news(running)
        status, said = running.run(
            f"echo 0000:{USED} > /sys/bus/pci/drivers/virtio-pci/bind")
        assert status and "Device or resource busy" in said, said
        lines = [line for line in printed(running) if "refused" in line]
        assert lines == [
            f"virtio-pci 0000:{USED}: refused: its group {group} has an owner"], lines
        first = running.sh(f"lsiommu {USED}").splitlines()[0]
        assert first == f"Group {group}: cannot be owned: {OWNED}", first


def past_switch(iommu):
    """Ports without ACS, the host's device and another owner's, either way."""
    with booted("switch", iommu, "iommu.reach=refuse", more=SWITCH) as running:
        bind(running, f"{HERE} {THERE}")
        refused(running, PAST, HERE)
        unbind(running, HOST)
        granted(running, HERE)
        own(running, f"group {running.groups()[HERE]}")
        refused(running, PAST, THERE)
        end(running, "vfio-claim")


def past_switch_with_acs(iommu):
    """Ports that isolate are not in the way, and one that does is reached."""
    with booted("switch", iommu, "iommu.reach=refuse pci=assume_acs="
                + PORT, more=SWITCH) as running:
        bind(running, f"{HERE} {THERE}")
        granted(running, HERE)
        unbind(running, HOST)
        own(running, f"group {running.groups()[THERE]}")
        refused(running, INTO, HERE)
        end(running, "vfio-claim")


def acs_off(iommu):
    """Switched off by a write; and on both ports, which is late."""
    ports, device = ("00:03.0", "00:03.2"), "01:00.0"
    with booted("root-ports", iommu, "iommu.reach=refuse",
                more=["virtio-rng-pci,bus=rp2,addr=0.0"]) as running:
        bind(running, device)
        granted(running, device)
        before = {}
        for port, symptom in zip(ports, (ACS_OFF, LATE)):
            control = acs_control(running, port)
            before[port] = word(running, port, control)
            set_word(running, port, control,
                     before[port] & ~REDIRECT if symptom is ACS_OFF else 0)
            if symptom is LATE:
                set_word(running, ports[0], acs_control(running, ports[0]), 0)
            refused(running, symptom, device)
        for port in ports:
            set_word(running, port, acs_control(running, port), before[port])
        granted(running, device)


def ungrouped(name, iommu, cmdline, symptom, device, bind_all):
    with booted(name, iommu, cmdline, bind=bind_all) as running:
        same_words(running, symptom, device)
        said = printed(running)
        lines = [line for line in said if re.search(pattern(symptom), line)]
        assert len(lines) == len(set(lines)), lines
        none = [line for line in said if "No groups so far" in line]
        assert len(none) == (symptom in (NO_IOMMU, OFF)), none
        assert any("Failed to add" in line for line in said) == (symptom is REFUSED), said
        if symptom == UNBOUND:
            groups, drivers = running.groups(), running.links("driver")
            waiting = [dev for dev in groups if groups[dev] is drivers[dev] is None]
            assert f"iommu: {len(waiting)} PCI devices" in lines[0], (waiting, lines)


class Undescribed(guest.Guest):
    """Of machines/no-unit with a DMAR that has no unit at all."""

    def _changed_table(self):
        table = guest.firmware_table(self.machine.name, "intel", "DMAR")
        return "DMAR", acpi.dmar(table[:acpi.BODY], ())


def not_in_use():
    """With advice where the log has that, which it has where the kernel wants an option.

    None of the options switches Intel's off.
    """
    with Undescribed("no-unit", "intel", "xintel_iommu=off intel_iommu=xoff,o,offs "
                     "amd_iommu=off iommu.x=off off", kernel=TESTED,
                     log="refusals-no-units") as running:
        same_words(running, NOT_IN_USE, "01:00.0")
        advice = "the IOMMU is not on: boot with intel_iommu=on"
        running.sh(f"echo 'iommu: No groups so far: {advice}' > /dev/kmsg")
        assert f"No group: {advice}\n" in running.sh("lsiommu 01:00.0")


# Machine, IOMMU, options, what is said of a device, and if drivers bind first.
UNGROUPED = (
    ("switch", "none", "", NO_IOMMU, "03:00.0", False),
    ("switch", "intel", "intel_iommu=off", OFF, "03:00.0", False),
    ("switch", "intel", "iommu=off", OFF, "03:00.0", False),
    ("switch", "intel", "iommu=pt,off", OFF, "03:00.0", False),
    ("switch", "intel", "acpi=off", OFF, "03:00.0", False),
    ("switch", "amd", "amd_iommu=off", OFF, "03:00.0", False),
    ("switch", "amd", "iommu=off intel_iommu=off", OFF, "03:00.0", False),
    ("no-unit", "intel", "", NO_UNIT, "00:05.0", False),
    ("no-unit", "intel", "", NO_UNIT, "01:00.0", False),
    ("switch", "virtio", "", UNBOUND, "03:00.0", False),
    ("demo", "virtio", "", REFUSED, "07:01.0", True),
    ("pci-bridge", "virtio", "", REFUSED, "03:03.0", True),
)


def all_are_walked():
    """The table has no symptom in words of the kernel that is not among these."""
    assert set(table()) == LOG.keys() == TOOL.keys(), table()


def cases():
    yield "each line of the admin guide's table of symptoms is tried", all_are_walked
    for iommu in X86_IOMMUS:
        for what, function in (
                ("a group with a device on a host driver", host_driver),
                ("a group that has an owner", other_owner),
                ("a group that somebody has open", open_already),
                ("a driver of the host whose device somebody owns",
                 host_driver_refused),
                ("what reaches others past ports without ACS", past_switch),
                ("what others reach, and what is below a port with ACS is not "
                 "refused", past_switch_with_acs),
                ("what reaches others since ACS is off, and what is tied late",
                 acs_off)):
            yield (f"{iommu}: the log, lsiommu and the guide's table have the same "
                   f"words for {what}", function, iommu)
        yield (f"{iommu}: a device that somebody has open by its own file has a line for "
               "who binds it, some for who insists, and another device its own",
               open_twice, iommu)
    yield ("intel: the log, lsiommu and the guide's table have the same words for a "
           "device that firmware uses", firmware_uses, "intel")
    yield ("intel: the log, lsiommu and the guide's table have the same words where the "
           "firmware's IOMMU is not in use", not_in_use)
    for name, iommu, cmdline, symptom, device, bind_all in UNGROUPED:
        if symptom == UNBOUND and not guest.BY_DRIVER:
            continue    # every device of these machines has a group
        yield (f"{name}, {iommu}, '{cmdline}': the log, lsiommu and the guide's "
               f"table say of {device}: {symptom}", ungrouped, name, iommu,
               cmdline, symptom, device, bind_all)
