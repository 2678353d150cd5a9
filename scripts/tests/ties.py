"""Devices that arrive late and tie groups together, or bring a whole switch."""
import guest
from proof import KERNEL, VENDORS, bind, end, ids, own, partition, \
    same_groups

EPERM = "1"


def late_alias(log):
    return guest.Guest("late-alias", "amd", kernel=KERNEL, log=log)


def add_late_device(running):
    running.device_add("edu", id="late", bus="rp0", addr="0.0")
    running.wait(lambda: ids(running).get("01:00.0"), "the late device")


def again(running, device):
    running.sh(f"echo 1 > /sys/bus/pci/devices/0000:{device}/remove; "
               "echo 1 > /sys/bus/pci/rescan")


def claims(running, what, names):
    """What trying to own each gives, in order: 0 or the errno."""
    said = running.sh(f"vfio-claim {what} {names}")
    return [line.split()[1] for line in said.splitlines()]


def idle_groups_merge():
    with late_alias("ties-idle") as running:
        add_late_device(running)
        now = running.groups()
        assert {now["00:05.0"], now["00:06.0"], now["01:00.0"]} == {40}, now
        assert "48" not in running.sh("ls /sys/kernel/iommu_groups").split()
        members = running.sh("ls /sys/kernel/iommu_groups/40/devices").split()
        assert members == ["0000:00:05.0", "0000:00:06.0", "0000:01:00.0"], \
            members
        reasons = running.reasons()
        assert reasons["00:06.0"] == "alias 01:00.0", reasons
        assert ids(running)["00:06.0"] == "40"
        bind(running, "00:05.0 00:06.0 01:00.0")
        assert claims(running, "group", "40") == ["0"]


def used_groups_are_refused():
    """Both in use: one warning, the owner stays, nobody new gets either."""
    with late_alias("ties-used") as running:
        bind(running, "00:05.0 00:06.0")
        own(running, "group", 48)
        before = running.groups()
        add_late_device(running)
        now = running.groups()
        assert now.pop("01:00.0") == 40 and now == before, now
        warnings = [line for line in running.sh("dmesg -r").splitlines()
                    if "Ties" in line]
        assert len(warnings) == 1 and warnings[0].startswith("<4>") and all(
            word in warnings[0] for word in ("40", "48", "0000:01:00.0")), \
            warnings
        # The owner is not disturbed.
        assert running.run("pidof vfio-claim")[0] == 0
        bind(running, "01:00.0")
        assert claims(running, "group", "40") == [EPERM]
        end(running, "vfio-claim")
        assert claims(running, "group", "48 40") == [EPERM, EPERM]
        assert claims(running, "device", "vfio0 vfio1 vfio2") == [EPERM] * 3
        # Nor are they said to be viable.
        for device in "00:05.0", "00:06.0":
            running.sh(f"VFIO_GROUP_SHARED=0000:{device} vfio_group -f shared")
        # The state goes with the group: emptied and made anew it is clean,
        # and the other one is not.
        running.device_del("late")
        running.wait(lambda: "01:00.0" not in ids(running), "it to go")
        assert claims(running, "group", "48 40") == [EPERM, EPERM]
        again(running, "00:06.0")
        bind(running, "00:06.0")
        assert claims(running, "group", "48 40") == ["0", EPERM]
        again(running, "00:05.0")
        bind(running, "00:05.0")
        assert claims(running, "group", "40") == ["0"]


def used_group_takes_the_idle_one():
    with late_alias("ties-half") as running:
        bind(running, "00:06.0")
        own(running, "group", 48)
        add_late_device(running)
        now = running.groups()
        assert {now["00:05.0"], now["00:06.0"], now["01:00.0"]} == {48}, now
        assert running.run("pidof vfio-claim")[0] == 0


def switch_found_again(name, iommu):
    """Removed below its Root Port, and hot-added as a whole."""
    with guest.Guest(name, iommu, kernel=KERNEL, log=f"again-{name}") as running:
        before = running.groups()
        reasons = running.reasons()
        for _ in range(3):
            again(running, "01:00.0")
            assert running.groups() == before, running.groups()
            assert running.reasons() == reasons, running.reasons()


def functions_found_again(iommu):
    """Function 2 has the bit: 0 and 1 are tied together when it is found."""
    with guest.Guest("e1000e", iommu, "pci=group_mf=00:04.2", KERNEL,
                     log="again") as running:
        before = running.groups()
        assert before["00:04.0"] == before["00:04.1"] == before["00:04.2"]
        for device in ("00:04.0", "00:04.1", "00:04.2"):
            running.sh(f"echo 1 > /sys/bus/pci/devices/0000:{device}/remove")
        running.sh("echo 1 > /sys/bus/pci/rescan")
        assert running.groups() == before, running.groups()
        same_groups(partition(running.groups()), partition(before))


def cases():
    yield ("amd: a late device merges two groups that are not in use",
           idle_groups_merge)
    yield ("amd: a late device can't merge two groups in use, which get no new "
           "owner until they are made anew", used_groups_are_refused)
    yield ("amd: a group in use takes in the one that is not",
           used_group_takes_the_idle_one)
    for iommu in VENDORS:
        for name in ("switch", "nested-switches"):
            yield (f"{name}, {iommu}: a switch that is hot-added as a whole is "
                   "grouped as at boot", switch_found_again, name, iommu)
        yield (f"{iommu}: a function with the group_mf bit that is found last "
               "ties the others together", functions_found_again, iommu)
