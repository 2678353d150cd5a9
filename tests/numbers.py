# SPDX-License-Identifier: GPL-2.0-only
"""The number of a device's group, by cat and by call."""
import json
import pathlib
import subprocess

import acpi
import guest
import machine
import where
from fixtures import TESTED, VENDORS_ALIKE, X86_IOMMUS, ask, bind, boot, \
    numbered_by_requester_id

NEEDS = "stock guest"
TOP = where.TOP
BUILD = where.BUILD

# What the module says of a device without a group: -ENODEV, and the number as
# it was before the call.
NO_GROUP = "-19 4294967295\n"


def id_is_link(name, iommu):
    found = boot(name, iommu)
    for device, number in found.groups.items():
        expected = None if number is None else str(number)
        assert found.ids[device] == expected, \
            f"{device}: id says {found.ids[device]}, the link {number}"


def answers(running):
    """What iommu_device_group() says of each device."""
    running.sh("insmod /group_probe.ko")
    said = {}
    for device in running.groups():
        said[device] = ask(running, device)
    return said


def call_is_link(name, iommu):
    with guest.Guest(name, iommu, kernel=TESTED, log="call") as running:
        groups = running.groups()
        for device, said in answers(running).items():
            expected = NO_GROUP if groups[device] is None \
                else f"0 {groups[device]}\n"
            assert said == expected, f"{device}: {said!r}, not {expected!r}"


def no_groups(iommu, cmdline):
    with guest.Guest("demo", iommu, cmdline, TESTED, log="off") as running:
        for device, number in running.groups().items():
            assert number is None, f"{device} is in group {number}"
        listed = running.sh("ls /sys/kernel/iommu_groups").split()
        assert not listed, f"there are groups: {listed}"
        for device, said in answers(running).items():
            assert said == NO_GROUP, f"{device}: {said!r}"


def no_iommu_by_requester_id():
    """Whichever is bound first, VFIO's groups have the devices' numbers."""
    with guest.Guest("demo", "none", "vfio.enable_unsafe_noiommu_mode=1",
                     TESTED, log="noiommu") as running:
        for device, number in (("05:00.0", 1280), ("02:00.1", 513),
                               ("02:00.0", 512)):
            bind(running, device)
            assert running.groups()[device] == number, \
                f"{device} is in group {running.groups()[device]}"
            running.sh(f"ls /dev/vfio/noiommu-{number}")
            assert running.reasons()[device] == "driver", running.reasons()


def mediated_devices(iommu):
    """They count up in the order in which they are made, as they have no address."""
    where = "/sys/bus/mdev/devices"
    with guest.Guest("demo", iommu, kernel=TESTED, log="mdev") as running:
        before = running.groups()
        for number in 0x7fff0000, 0x7fff0001:
            uuid = running.read("/proc/sys/kernel/random/uuid").strip()
            running.sh(f"echo {uuid} > /sys/devices/virtual/mtty/mtty/"
                       "mdev_supported_types/mtty-1/create")
            assert running.read(f"{where}/{uuid}/iommu_group/id") == f"{number}\n"
            running.sh(f"[ -c /dev/vfio/{number} ]")
            said = running.sh(f"lsiommu {uuid}")
            assert said.startswith(f"Group {number}") and f" {uuid} " in said, said
        # Whoever is made first has the first number.
        running.sh(f"for d in {where}/*; do echo 1 > $d/remove; done; "
                   f"echo {uuid} > /sys/devices/virtual/mtty/mtty/"
                   "mdev_supported_types/mtty-1/create")
        found = running.sh(f"basename $(readlink {where}/{uuid}/iommu_group)")
        assert int(found) == 0x7fff0000, found
        assert running.groups() == before
        assert "still in use" not in running.sh("dmesg")


# Devices that no bus names, and the Requester ID that firmware gives them both
NAMED = ("QEMU0002", "PNP0103")
NAMED_AS = "00:1f.7"


class Named(guest.Guest):
    """Of a machine for AMD's IOMMU, whose table has these."""

    def _changed_table(self):
        table = guest.firmware_table(self.machine.name, "amd", "IVRS")
        return "IVRS", acpi.ivrs_names(table, [(hid, NAMED_AS) for hid in NAMED])


def by_name():
    """Stock gives them a number that depends on how many groups came before."""
    for kernel, wanted in ("stock", False), (TESTED, True):
        with Named("ivrs-alias", "amd", kernel=kernel, log="named") as running:
            found = {running.sh(f"basename $(readlink /sys/bus/platform/devices/"
                                f"{hid}:00/iommu_group)") for hid in NAMED}
        assert len(found) == 1, f"{kernel}: they are in groups {found}"
        number = int(found.pop())
        assert (number == acpi.requester_id(NAMED_AS)) == wanted, f"{kernel}: {number}"


def by_requester_id(name, iommu):
    numbered_by_requester_id(boot(name, iommu).groups)


def sequential_as_stock(name, iommu):
    ours = boot(name, iommu, "iommu.group_ids=sequential").groups
    stock = boot(name, iommu, kernel="stock").groups
    assert ours == stock, f"{ours}, stock: {stock}"


def same_with_one_more_card(iommu):
    """In the lowest slot there is; stock's numbers all move."""
    def groups(kernel, more=()):
        with guest.Guest("demo", iommu, kernel=kernel, more=more,
                         log="card") as running:
            return running.groups()

    card = ["edu,bus=pcie.0,addr=2.0"]
    for kernel, same in ((TESTED, True), ("stock", False)):
        before, after = groups(kernel), groups(kernel, card)
        moved = [device for device, number in before.items()
                 if after[device] != number]
        assert bool(moved) != same, f"{kernel}: moved: {moved}"


def moved_with_buses(iommu):
    """A card behind a port of its own moves what is behind the ports after it.

    An old number is then another device's.
    """
    card = ["pcie-root-port,id=new,bus=pcie.0,addr=2.0,chassis=9,slot=9",
            "edu,bus=new,addr=0.0"]
    with guest.Guest("demo", iommu, kernel=TESTED, more=card, log="card") as running:
        after = running.groups()
        paths = dict(line.split()[::-1] for line
                     in running.sh("lsiommu --path").splitlines())
    before = {device["path"]: (device["device"][5:], group["group"])
              for group in json.loads(boot("demo", iommu).lsiommu["--json"])["groups"]
              for device in group["devices"]}
    numbered_by_requester_id(after)
    for path, (device, number) in before.items():
        now, = [machine.short(one) for one, other in paths.items() if other == path]
        assert (after[now] == number) == (now == device or number == 0xf0), \
            f"{path}: {device} in {number}, {now} in {after[now]}"
    assert before["00:03.1/00.0"][1] == 0x200
    assert paths["0000:02:00.0"] == "00:03.0/00.0" and after["02:00.0"] == 0x200


def same_by_both():
    for name in machine.names():
        by_intel = boot(name, "intel").groups
        by_amd = boot(name, "amd").groups
        # Tables that only one of them has change the groups of the machine.
        if machine.load(name).tables:
            continue
        for device, number in by_intel.items():
            assert by_amd[device] == number, f"{name}, {device}: " \
                f"Intel {number}, AMD {by_amd[device]}"


def held_number(iommu):
    """A group that is held keeps its number; the device gets another."""
    device = "0000:00:06.0"
    with guest.Guest("e1000e", iommu, kernel=TESTED, log="held") as running:
        running.sh("insmod /group_probe.ko")
        hold = "/sys/module/group_probe/parameters/hold"
        again = (f"echo 1 > /sys/bus/pci/devices/{device}/remove; "
                 "echo 1 > /sys/bus/pci/rescan")
        before = running.groups()
        running.sh(f"echo {device} > {hold}")
        running.sh(again)
        held = running.groups()
        number = held.pop("00:06.0")
        assert number == 0x7fff0000, f"{number} is not the first above"
        assert before.pop("00:06.0") == 48 and before == held, \
            "the other numbers"
        lines = [line for line in running.log().splitlines()
                 if "48 is still in use" in line]
        assert len(lines) == 1 and str(number) in lines[0], lines
        running.sh(f"echo none > {hold}")
        running.sh(again)
        assert running.groups()["00:06.0"] == 48, "48 is free again"
        listed = set(map(int, running.sh(
            "ls /sys/kernel/iommu_groups").split()))
        assert listed == set(running.groups().values()) - {None}, \
            f"groups without a device: {listed}"


def number_of_an_open_group(iommu):
    """VFIO lets go of a group whose last device goes, open or not."""
    device = "0000:00:06.0"
    with guest.Guest("e1000e", iommu, kernel=TESTED, log="open") as running:
        bind(running, machine.short(device))
        assert "48" in running.sh("ls /dev/vfio").split()
        running.sh("sleep 1000 < /dev/vfio/48 > /dev/null 2>&1 &")
        running.wait(lambda: running.run(
            "readlink /proc/$(pidof sleep)/fd/0")[1] == "/dev/vfio/48\n",
            "an owner of /dev/vfio/48")
        running.sh(f"echo 1 > /sys/bus/pci/devices/{device}/remove; "
                   "echo 1 > /sys/bus/pci/rescan")
        assert running.groups()["00:06.0"] == 48


def compiles_without_iommu():
    """The stub is used: nothing is left for the linker to find."""
    def run(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    run(TOP / "scripts/kernel", "noiommu")
    config = (BUILD / "noiommu/.config").read_text()
    assert "CONFIG_IOMMU_API=y" not in config
    where = BUILD / "noiommu/group_probe"
    where.mkdir(exist_ok=True)
    for source in pathlib.Path(TOP / "guest/modules/group_probe").iterdir():
        (where / source.name).write_text(source.read_text())
    run("make", "-C", BUILD / "linux", f"O={BUILD}/noiommu", f"M={where}",
        "group_probe.o")
    undefined = run("nm", "-u", where / "group_probe.o")
    assert "iommu_device_group" not in undefined, undefined


def cases():
    for name in machine.names():
        for iommu in X86_IOMMUS:
            yield (f"{name}, {iommu}: iommu_group/id is the number in the "
                   "link, one line", id_is_link, name, iommu)
            yield (f"{name}, {iommu}: a group's number is the Requester ID of "
                   "its lowest member", by_requester_id, name, iommu)
    for iommu in VENDORS_ALIKE:
        yield (f"{iommu}: iommu.group_ids=sequential gives stock's numbers",
               sequential_as_stock, "demo", iommu)
        yield (f"{iommu}: numbers stay when a card is added in a lower slot, "
               "stock's do not", same_with_one_more_card, iommu)
        yield (f"{iommu}: numbers move with the addresses when a card behind a port "
               "moves the buses, and the others stay", moved_with_buses, iommu)
        yield (f"{iommu}: a number that is held is not given again, the log "
               "says so, and it is free later", held_number, iommu)
        yield (f"{iommu}: a device that comes back has its number while its "
               "/dev/vfio file is open", number_of_an_open_group, iommu)
    yield "numbers are the same under Intel and AMD", same_by_both
    yield ("none: VFIO's groups for devices without an IOMMU are numbered by "
           "Requester ID, in any order, and have VFIO's driver as the reason",
           no_iommu_by_requester_id)
    yield ("amd: devices that only ACPI names share a group that has the number of "
           "the Requester ID that firmware gives them", by_name)
    for iommu in "intel", "none":
        yield (f"{iommu}: mediated devices have the first numbers above those of "
               "addresses, in the order in which they are made", mediated_devices, iommu)
    for iommu in VENDORS_ALIKE:
        for name in ("demo", "sriov"):
            yield (f"{name}, {iommu}: iommu_device_group() gives the number in "
                   "the link, or -ENODEV and writes nothing",
                   call_is_link, name, iommu)
    for iommu, cmdline in (("none", ""), ("intel", "intel_iommu=off"),
                           ("amd", "amd_iommu=off"), ("intel", "iommu=off"),
                           ("none", "iommu=group_mf")):
        yield (f"{iommu} '{cmdline}': no device has a group, and "
               "iommu_device_group() gives -ENODEV and writes nothing",
               no_groups, iommu, cmdline)
    yield ("iommu_device_group() compiles without CONFIG_IOMMU_API",
           compiles_without_iommu)
