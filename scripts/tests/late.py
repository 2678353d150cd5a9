"""Devices that arrive late, alone or as a whole switch, and tie groups together.

On machines/late-alias AMD's alias table ties two groups by a device that comes late.
It joins the lower one, nothing is moved; that it belongs to the other as well counts
as long as it is there, whenever somebody wants one of the three.
"""
import re

import guest
from proof import GROUP_MF, KERNEL, VENDORS, bind, claims, driver, end, ids, \
    kselftest, members, news, own, partition, refused_as_shared, same_groups, to_own, unbind

EPERM = "1"
POLICIES = ("refuse", "warn")
LOWER, HIGHER, LATE = "00:05.0", "00:06.0", "01:00.0"


def late_alias(policy, log):
    return guest.Guest("late-alias", "amd", f"iommu.reach={policy}", KERNEL,
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
    with guest.Guest(name, iommu, kernel=KERNEL, log=f"again-{name}") as running:
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
    with guest.Guest("e1000e", iommu, cmdline, KERNEL, log="again") as running:
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
