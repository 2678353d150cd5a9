"""The number of a device's group, by cat and by call."""
import pathlib
import subprocess

import guest
import machine
from proof import KERNEL, VENDORS, boot

TOP = machine.TOP
BUILD = guest.BUILD

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
        name = device if device.count(":") == 2 else "0000:" + device
        parameter = "/sys/module/group_probe/parameters/device"
        said[device] = running.sh(
            f"echo {name} > {parameter}; cat {parameter}")
    return said


def call_is_link(name, iommu):
    with guest.Guest(name, iommu, kernel=KERNEL, log="call") as running:
        groups = running.groups()
        for device, said in answers(running).items():
            expected = NO_GROUP if groups[device] is None \
                else f"0 {groups[device]}\n"
            assert said == expected, f"{device}: {said!r}, not {expected!r}"


def no_groups(iommu, cmdline):
    with guest.Guest("demo", iommu, cmdline, KERNEL, log="off") as running:
        for device, number in running.groups().items():
            assert number is None, f"{device} is in group {number}"
        listed = running.sh("ls /sys/kernel/iommu_groups").split()
        assert not listed, f"there are groups: {listed}"
        for device, said in answers(running).items():
            assert said == NO_GROUP, f"{device}: {said!r}"


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
    for source in pathlib.Path(TOP / "guest/group_probe").iterdir():
        (where / source.name).write_text(source.read_text())
    run("make", "-C", BUILD / "linux", f"O={BUILD}/noiommu", f"M={where}",
        "group_probe.o")
    undefined = run("nm", "-u", where / "group_probe.o")
    assert "iommu_device_group" not in undefined, undefined


def cases():
    for name in machine.names():
        for iommu in VENDORS:
            yield (f"{name}, {iommu}: iommu_group/id is the number in the "
                   "link, one line", id_is_link, name, iommu)
    for iommu in VENDORS:
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
