# SPDX-License-Identifier: GPL-2.0-only
"""Devices that arrive late, alone or as a whole switch, and tie groups together.

On machines/late-alias AMD's alias table ties two groups by a device that comes late.
It joins the lower one, nothing is moved; that it belongs to the other as well counts
as long as it is there, whenever somebody wants one of the three.
"""
import base64
import pathlib
import re
import struct
import tempfile
import uuid

import acpi
import counters
import guest
from fixtures import GROUP_MF, TESTED, VENDORS, bind, claims, driver, end, ids, \
    kselftest, members, news, own, partition, refused_as_shared, same_groups, to_own, \
    unbind

NEEDS = "debug-kernel guest"
EPERM = "1"
POLICIES = ("refuse", "warn")
LOWER, HIGHER, LATE = "00:05.0", "00:06.0", "01:00.0"

# What it ties to LOWER instead of HIGHER, with a policy of its own for its domain:
# firmware wants memory mapped for the one, and the other is below a port to which
# anybody can plug something.
MAPPED, UNTRUSTED = "00:07.0", "02:00.0"
POLICY_DEVICES = ["edu,bus=pcie.0,addr=7.0,dma_mask=0xffffffff",
                  "pcie-root-port,id=rp1,bus=pcie.0,addr=4.0,chassis=2,slot=2",
                  "edu,bus=rp1,addr=0.0"]

# At most, one after the other
FAULTS = 60


def late_alias(policy, log):
    return guest.Guest("late-alias", "amd", f"iommu.reach={policy}", TESTED,
                       log=log)


def add_late_device(running, kind="edu"):
    running.device_add(kind, id="late", bus="rp0", addr="0.0")
    running.wait(lambda: ids(running).get(LATE), "the late device")


def remove_late_device(running):
    running.device_del("late")
    running.wait(lambda: LATE not in ids(running), "it to go")


def again(running, device):
    running.sh(f"echo 1 > /sys/bus/pci/devices/0000:{device}/remove; "
               "echo 1 > /sys/bus/pci/rescan")


def reach(running, group):
    return running.read(f"/sys/kernel/iommu_groups/{group}/reach").replace(
        " 0000:", " ").splitlines()


def said(running):
    return [line.replace("0000:", "") for line in news(running)
            if "tied late" in line]


def refused(running, words, group, device, who):
    """And the one line says why, naming a device that is tied by now."""
    said(running)
    assert claims(running, words) == [EPERM], said(running)
    line, = said(running)
    assert re.fullmatch(
        rf"iommu: group {group}: refused: {device} \({who}\) can be reached "
        r"past (00:05\.0|00:06\.0|01:00\.0): tied late", line), line


def granted(running, words):
    said(running)
    found = claims(running, words)
    lines = said(running)
    assert set(found) == {"0"} and not lines, f"{words}: {found} {lines}"


def joins_the_lower():
    with late_alias("warn", "late-joins") as running:
        before, reasons = running.groups(), running.reasons()
        assert reach(running, 40) == reach(running, 48) == []
        add_late_device(running)
        now = running.groups()
        assert now.pop(LATE) == 40 and now == before, now
        assert members(running)[40] == {"0000:00:05.0", "0000:01:00.0"}
        assert members(running)[48] == {"0000:00:06.0"}
        now = running.reasons()
        assert now.pop(LATE) == "alias 00:05.0" and now == reasons, now
        assert not said(running)
        line, = reach(running, 40)
        assert line in (f"48 late 00:05.0 {HIGHER}", f"48 late {LATE} {HIGHER}")
        line, = reach(running, 48)
        assert line == f"40 late {HIGHER} {LOWER}", line
        remove_late_device(running)
        assert reach(running, 40) == reach(running, 48) == []
        assert (running.groups(), running.reasons()) == (before, reasons)


def one_owner_has_both(policy):
    with late_alias(policy, "late-owner") as running:
        add_late_device(running)
        bind(running, f"{LOWER} {HIGHER} {LATE}")
        for together in "", "together ":
            for ways in (("container", "container"), ("iommufd", "iommufd"),
                         ("container", "iommufd")):
                words = [to_own(running, way, device)
                         for way, device in zip(ways, (LOWER, HIGHER))]
                granted(running, together + " ".join(words))
                granted(running, together + " ".join(words[::-1]))
        # A second one gets neither, as long as the first one has the other.
        for mine, other, group in (LOWER, HIGHER, 48), (HIGHER, LOWER, 40):
            for way in "container", "iommufd":
                own(running, to_own(running, way, mine))
                device = LATE if mine == LOWER else HIGHER
                said(running)
                words = to_own(running, way, other)
                assert claims(running, words) == [EPERM], words
                line, = said(running)
                assert line.startswith(f"iommu: group {group}: refused: ") and \
                    "(another owner)" in line, (device, line)
                end(running, "vfio-claim")
                granted(running, words)


def the_host_has_one(policy):
    """The late device itself is the host's, so neither group is for others."""
    with late_alias(policy, "late-host") as running:
        bind(running, f"{LOWER} {HIGHER}")
        add_late_device(running, "virtio-rng-pci")
        running.wait(lambda: driver(running, LATE) == "virtio-pci", "its driver")
        for way in "container", "iommufd":
            refused(running, to_own(running, way, HIGHER), 48, LATE, "virtio-pci")
        # The other one has it as a member.
        assert claims(running, "group 40") == [EPERM]
        refused_as_shared(running, HIGHER)
        refused_as_shared(running, LOWER)
        unbind(running, LATE)
        granted(running, "group 48")
        granted(running, "group 40")


def arrives_while_owned(policy, way):
    """The owner stays, and nothing of this is remembered when it has ended."""
    with late_alias(policy, "late-owned") as running:
        bind(running, f"{LOWER} {HIGHER}")
        own(running, to_own(running, way, HIGHER))
        said(running)
        add_late_device(running, "virtio-rng-pci")
        lines = []
        running.wait(lambda: lines.extend(said(running)) or lines, "a line")
        assert len(lines) == 1 and re.fullmatch(
            rf"virtio-pci {LATE}: refused: group 48, which is owned, reaches it "
            rf"past {HIGHER}: tied late", lines[0]), lines
        assert not driver(running, LATE), driver(running, LATE)
        assert running.groups()[LATE] == 40
        assert running.run("pidof vfio-claim")[0] == 0, "the owner is gone"
        bind(running, LATE)
        said(running)
        assert claims(running, "group 40") == [EPERM]
        assert said(running)
        running.sh(f"echo > /sys/bus/pci/devices/0000:{LATE}/driver_override; "
                   f"echo 0000:{LATE} > /sys/bus/pci/drivers/vfio-pci/unbind; "
                   f"echo 0000:{LATE} > /sys/bus/pci/drivers_probe; true")
        end(running, "vfio-claim")
        # By itself
        running.wait(lambda: driver(running, LATE) == "virtio-pci", "its driver")
        unbind(running, LATE)
        granted(running, "group 48")
        granted(running, "group 40 48")
        granted(running, "group 48 40")


def not_for_good():
    """Not even what has met others in use is refused once all is idle."""
    with late_alias("warn", "late-again") as running:
        bind(running, f"{LOWER} {HIGHER}")
        for _ in range(3):
            own(running, "group 48")
            add_late_device(running)
            assert claims(running, "group 40") == [EPERM]
            end(running, "vfio-claim")
            granted(running, "group 40 48")
            own(running, "group 40")
            assert claims(running, "group 48") == [EPERM]
            remove_late_device(running)
            # Nothing ties them now, though the one still has its owner.
            granted(running, "group 48")
            end(running, "vfio-claim")
            granted(running, "group 40")


# Sets what holds the lock of a device: each for a moment, over and over, as does
# whoever looks at a device in sysfs or is about to change it.
LOCKERS = ("while [ -e /tmp/lock ]; do for d in {devices}; do cat $d/driver_override "
           "$d/power/control; echo vfio-pci > $d/driver_override; done; done "
           "> /dev/null 2>&1")


def locks_are_held(policy, way):
    """Whoever holds a device's lock while the late device comes matters to nobody."""
    with late_alias(policy, "late-locks") as running:
        bind(running, f"{LOWER} {HIGHER}")
        both = " ".join(to_own(running, way, device)
                        for device in (LOWER, HIGHER))
        running.sh("touch /tmp/lock; cd /sys/bus/pci/devices; for n in 1 2 3; do "
                   + LOCKERS.format(devices=f"0000:{LOWER} 0000:{HIGHER}")
                   + " & done")
        for _ in range(4):
            own(running, both)
            add_late_device(running)
            assert running.groups()[LATE] == 40
            end(running, "vfio-claim")
            granted(running, both)
            own(running, both)
            remove_late_device(running)
            end(running, "vfio-claim")
            granted(running, both)
        running.sh("rm /tmp/lock")


def allocations_fail():
    """While the late device comes; and it still ties the two when it is there."""
    path = f"/sys/bus/pci/devices/0000:{LATE}"
    leave = f"[ ! -e {path} ] || echo 1 > {path}/remove"
    with guest.Guest("late-alias", "amd", "kmemleak=off", kernel="debug",
                     log="late-faults", more=["edu,bus=rp0,addr=0.0"],
                     acpi_hotplug=False) as running:
        # When it is found again, the other two have their groups already.
        running.sh("cd /sys/bus/pci/devices; for d in "
                   f"{LATE} {LOWER} {HIGHER}; do echo 1 > 0000:$d/remove; done; "
                   "echo 1 > /sys/bus/pci/rescan")
        now = running.groups()
        assert [now[device] for device in (LOWER, HIGHER, LATE)] == \
            [40, 48, 40], now
        bind(running, f"{LOWER} {HIGHER}")
        # One owner, and two. In few commands: to start one takes this kernel long.
        running.sh("printf '%s\\n' 'vfio-claim group 40 48' "
                   "'vfio-claim hold group 48 > /tmp/owner &' "
                   "'until grep -q . /tmp/owner; do :; done' "
                   "'vfio-claim group 40; kill $!; wait' > /tmp/claims")
        wanted = f"40 0\n48 0\n40 {EPERM}\n"
        for start in "pci_group_add", "iommu_probe_device":
            running.sh("cd /sys/kernel/debug/failslab; echo 0 > verbose; "
                       "echo N > ignore-gfp-wait; "
                       f"set -- $(grep -A 1 ' [Tt] {start}$' /proc/kallsyms); "
                       "echo 0x$1 > require-start; echo 0x$4 > require-end")
            failed = 0
            while failed < FAULTS:
                left, said = running.sh(
                    f"{leave}; : > /tmp/owner; echo {failed + 1} > "
                    "/proc/self/fail-nth; echo 1 > /sys/bus/pci/rescan; "
                    "read left < /proc/self/fail-nth; "
                    "echo 0 > /proc/self/fail-nth; echo $left; "
                    "[ $left != 0 ] || sh /tmp/claims 2>&1",
                    timeout=60).split("\n", 1)
                if int(left):       # there is no such allocation
                    break
                failed += 1
                assert said == wanted, f"{start}, {failed}: {said}"
            assert 0 < failed < FAULTS, f"{start}: {failed}"
            counters.add("allocations made to fail while a late device comes",
                        failed)
        # Nothing of this is remembered when it has gone.
        running.sh(leave)
        own(running, "group 48")
        granted(running, "group 40")


def checked(table):
    """The table with its length, and the sum that makes it valid."""
    table = bytearray(table)
    struct.pack_into("<I", table, 4, len(table))
    table[9] = 0
    table[9] = -sum(table) & 0xff
    return bytes(table)


def external_facing(path):
    """An SSDT that says so of a port, in ACPI's machine language."""
    def sized(content):
        # Its own length counts, in one byte or in two.
        length = len(content) + 1
        return bytes([length]) + content if length < 64 else \
            bytes([0x40 | (length + 1) & 0xf, (length + 1) >> 4]) + content

    def package(*elements):
        return b"\x12" + sized(bytes([len(elements)]) + b"".join(elements))

    properties = uuid.UUID("efcc06cc-73ac-4bc3-bff0-76143807c389").bytes_le
    data = package(
        b"\x11" + sized(b"\x0a" + bytes([len(properties)]) + properties),
        package(package(b"\x0dExternalFacingPort\0", b"\x01")))
    scope = b"\x10" + sized(b"\\\x2f" + bytes([len(path) // 4]) + path
                           + b"\x08_DSD" + data)
    return checked(struct.pack("<4sIBB6s8sI4sI", b"SSDT", 0, 2, 0, b"TEST  ",
                               b"EXTERNAL", 1, b"TEST", 1) + scope)


class Policies(guest.Guest):
    """machines/late-alias with POLICY_DEVICES, and tables that say so of them."""

    def __init__(self, ivrs, tied, memory):
        self.ivrs, self.tied, self.memory = ivrs, tied, memory
        super().__init__("late-alias", "amd", kernel=TESTED, log="late-policy",
                         more=POLICY_DEVICES)

    def _with_table(self, initramfs):
        # A definition of memory (type 0x21, of one device), which is to be mapped
        # where it is, for reading and for writing.
        mapped = struct.pack("<BBHHHQQQ", 0x21, 7, 32,
                             acpi.requester_id(MAPPED), 0, 0, *self.memory)
        ivrs = acpi.ivrs_aliases(self.ivrs, [(LATE, LOWER), (self.tied, LATE)])
        self.scratch = tempfile.TemporaryDirectory()
        path = pathlib.Path(self.scratch.name, "initramfs.cpio")
        path.write_bytes(
            acpi.initramfs("IVRS", checked(ivrs + mapped))
            # The port above UNTRUSTED, as QEMU's tables name it
            + acpi.initramfs("SSDT", external_facing(b"_SB_PCI0S20_"))
            + initramfs.read_bytes())
        return path


def firmware():
    """QEMU's IVRS with POLICY_DEVICES, and where the memory of HIGHER is then."""
    with guest.Guest("late-alias", "amd", kernel=TESTED, log="late-IVRS",
                     more=POLICY_DEVICES, tables=False) as running:
        ivrs = base64.b64decode(running.sh(
            "base64 /sys/firmware/acpi/tables/IVRS"))
        start, last, _ = running.read(
            f"/sys/bus/pci/devices/0000:{HIGHER}/resource").split(maxsplit=2)
        return ivrs, (int(start, 16), int(last, 16) + 1 - int(start, 16))


def policies(running):
    """Of each group's domain: its type and what must be mapped in it."""
    return running.sh("cd /sys/kernel/iommu_groups; for g in *; do "
                      "echo $g $(cat $g/type $g/reserved_regions); done")


def does_dma(running, memory):
    """MAPPED copies what HIGHER's memory starts with, to a register there."""
    register, inverted = 4, ~0x010000ed & 0xffffffff
    running.sh(f"pci-peek 0000:{HIGHER} {register} 0")
    for source, target, command in ((memory, 0x40000, 1),
                                    (0x40000, memory + register, 3)):
        running.sh(f"pci-peek 0000:{MAPPED} 0x80 {source:#x} 0x88 {target:#x} "
                   f"0x90 4 0x98 {command}; sleep 0.3")
    return int(running.sh(f"pci-peek 0000:{HIGHER} {register}"), 16) == inverted


def domain_stays(tied):
    """Each group has the domain that it had, whoever owns what it is tied to."""
    ivrs, memory = firmware()
    with Policies(ivrs, tied, memory) as running:
        groups = running.groups()
        ours, others = groups[LOWER], groups[tied]
        # What is untrusted cannot have that.
        for number in {ours, groups[UNTRUSTED]}:
            running.run(f"echo identity > /sys/kernel/iommu_groups/{number}/type")
        before = policies(running)
        kinds = {int(number): words for number, *words in
                 map(str.split, before.splitlines())}
        assert kinds[ours][0] == "identity", before
        for device in MAPPED, UNTRUSTED:
            assert kinds[groups[device]][0].startswith("DMA"), before
        assert [number for number in kinds if "direct" in kinds[number]] == \
            [groups[MAPPED]], before
        for device in HIGHER, MAPPED:
            path = f"/sys/bus/pci/devices/0000:{device}"
            running.sh(f"echo 1 > {path}/enable; printf '\\x06' | dd bs=1 seek=4 "
                       f"conv=notrunc of={path}/config 2>/dev/null")
        assert does_dma(running, memory[0])
        bind(running, LOWER)
        for way in "container", "iommufd":
            own(running, to_own(running, way, LOWER))
            add_late_device(running)
            now = policies(running)
            assert now == before, f"{before}\nnow {now}"
            assert does_dma(running, memory[0])
            now = running.groups()
            assert now.pop(LATE) == ours and now == groups, now
            bind(running, tied)
            assert claims(running, to_own(running, way, tied)) == [EPERM]
            end(running, "vfio-claim")
            granted(running, f"group {ours}")
            if tied == UNTRUSTED:
                granted(running, f"group {ours} {others}")
                own(running, f"group {others}")
                assert claims(running, f"group {ours}") == [EPERM]
                end(running, "vfio-claim")
            assert policies(running) == before
            unbind(running, tied)
            remove_late_device(running)
            assert policies(running) == before


def selftests():
    """Those of the series; what is not tied late is in reach.py."""
    with late_alias("warn", "late-selftests") as running:
        add_late_device(running)
        bind(running, f"{LOWER} {HIGHER} {LATE}")
        kselftest(running, "vfio_reach",
                  {"VFIO_REACH_TIED": LOWER, "VFIO_REACH_TIED_OTHER": HIGHER},
                  options=" ".join(f"-v {policy}_late_{ways}"
                                   for policy in POLICIES
                                   for ways in ("containers", "iommufds")))


def switch_found_again(name, iommu):
    """Removed below its Root Port, and hot-added as a whole."""
    with guest.Guest(name, iommu, kernel=TESTED, log=f"again-{name}") as running:
        before = running.groups()
        reasons = running.reasons()
        for _ in range(3):
            again(running, "01:00.0")
            if iommu == "virtio":
                running.sh(guest.BIND_ALL)
            assert running.groups() == before, running.groups()
            assert running.reasons() == reasons, running.reasons()


def functions_found_again(iommu, cmdline):
    """Function 2 has the bit: 0 and 1 are in one group when it is found.

    And where another is found later they have been told apart before: nothing is
    moved, so that one is in the lower group.
    """
    with guest.Guest("e1000e", iommu, cmdline, TESTED, log="again") as running:
        before = running.groups()
        assert before["00:04.0"] == before["00:04.1"] == before["00:04.2"]
        for device in ("00:04.0", "00:04.1", "00:04.2"):
            running.sh(f"echo 1 > /sys/bus/pci/devices/0000:{device}/remove")
        running.sh("echo 1 > /sys/bus/pci/rescan")
        if cmdline == GROUP_MF:
            assert running.groups() == before, running.groups()
            same_groups(partition(running.groups()), partition(before))
            return
        # A slot's functions are found, and grouped, one after the other.
        now = running.groups()
        found = [now[f"00:04.{nth}"] for nth in range(3)]
        assert found in ([32, 32, 32], [32, 33, 32]), found


def cases():
    yield ("amd: a late device joins the lower of the groups that it ties, "
           "nothing is moved, and each reaches the other until it goes",
           joins_the_lower)
    for policy in POLICIES:
        yield (f"amd, {policy}: groups that are tied late are for one owner",
               one_owner_has_both, policy)
        yield (f"amd, {policy}: groups that are tied late are refused while the "
               "host uses a device of one of them", the_host_has_one, policy)
        for way in "container", "iommufd":
            yield (f"amd, {policy}, {way}: a device that ties an owned group is "
                   "not for the host's driver till the release, and all can be "
                   "owned then", arrives_while_owned, policy, way)
    yield ("amd: what was refused for being tied late is granted again when all "
           "is idle, over and over", not_for_good)
    for policy, way in zip(POLICIES, ("container", "iommufd")):
        yield (f"amd, {policy}, {way}: locks of devices that are held while one "
               "comes that ties two groups of one owner: the next start is "
               "granted", locks_are_held, policy, way)
    yield ("amd, debug: allocations that fail while a device comes that ties two "
           "groups: their one owner is granted both again, a second one is "
           "refused", allocations_fail)
    for what, tied in (("of an untrusted device", UNTRUSTED),
                       ("in which firmware wants memory mapped", MAPPED)):
        yield (f"amd: a group with a domain {what} keeps it when a device ties it "
               "to one with another, and the two are not for two owners",
               domain_stays, tied)
    yield "amd: selftests/vfio find groups that are tied late as they are", \
        selftests
    for iommu in (*VENDORS, "virtio"):
        for name in ("switch", "nested-switches"):
            yield (f"{name}, {iommu}: a switch that is hot-added as a whole is "
                   "grouped as at boot", switch_found_again, name, iommu)
    for iommu in VENDORS:
        for cmdline in GROUP_MF, "pci=group_mf=00:04.2":
            yield (f"{iommu} '{cmdline}': functions that are removed and found "
                   "again are tied together", functions_found_again, iommu,
                   cmdline)
