# SPDX-License-Identifier: GPL-2.0-only
"""What the tests share: boots that several of them look at, and comparisons."""
import base64
import os
import re
import struct
import threading

import acpi
import guest
import machine
import where

# Which build is tested: ON=stock is to see that a test can fail
TESTED = os.environ.get("ON") or "patched"
VENDORS = ("intel", "amd")
X86_IOMMUS = ("intel", "amd", "virtio")
# With LONG=1, as make check has it, all that there is; without, what takes longest is
# left out.
LONG = bool(os.environ.get("LONG"))
PLAIN = ""
GROUP_MF = "iommu=group_mf"
# Old enough for kmemleak, and twice: it tells what both scans found.
LEAKS = ("sleep 6; cd /sys/kernel/debug; echo scan > kmemleak; "
         "echo scan > kmemleak; cat kmemleak")

# Ports more for the switch of machines/switch, beside the two that it has
THIRD_PORT, FOURTH_PORT = (
    f"xio3130-downstream,id=dn{at},bus=up0,addr={at}.0,chassis={at + 4},slot={at + 4}"
    for at in (2, 3))

# Why a device has no group where firmware says whose IOMMU is whose, and no driver
# has bound yet.
UNBOUND = ("gets one when a driver binds, if an IOMMU covers it" if guest.BY_DRIVER
           else "no IOMMU in use covers it, or the log says why")

# The extended capability of ACS, and where in it the Control register is.
ACS, ACS_CONTROL = 0x0d, 6

_lock = threading.Lock()
_locks = {}
_boots = {}


Skip = machine.Skip


def some(choices, nth=0):
    """All of them with LONG=1, else one: another one for another nth."""
    return choices if LONG else (choices[nth % len(choices)],)


# For what is the same code under both: on the kernels that are tested after the first
# of rig/kernels, one does.
VENDORS_ALIKE = VENDORS if where.KERNEL == where.KERNELS[0] else some(VENDORS)


class Boot:
    """What a machine showed right after boot.

    groups  device: number of its group, None without one; from the links
    ids     device: content of its iommu_group/id, None without such a file
    reasons device: content of its iommu_group_reason
    log     what the kernel printed, a list of lines, the level ahead: <4> warns

    And with a plain command line, or on arm64 whatever it is:

    drivers device: its driver, None without one
    units   device: its IOMMU, None without one
    members number of a group: names of its members, as its directory has them
    lsiommu what lsiommu prints by option: "", "--json", "--dot"
    """

    def __init__(self, name, iommu, cmdline, kernel):
        self.machine = machine.load(name)
        self.iommu = iommu
        with guest.Guest(name, iommu, cmdline, kernel) as running:
            self.groups = running.groups()
            self.ids = ids(running)
            self.reasons = running.reasons()
            if not cmdline or iommu == "smmu":
                self.drivers = running.links("driver")
                # An IOMMU itself has a directory of that name, and no link.
                self.units = {device: unit if unit != "iommu" else None
                              for device, unit in running.links("iommu").items()}
                self.members = members(running)
                self.lsiommu = {option: running.sh(f"lsiommu {option}")
                                for option in ("", "--json", "--dot")}
            self.log = running.sh("dmesg -r").splitlines()

    def partition(self):
        return partition(self.groups)

    def ungrouped(self):
        return {device for device, number in self.groups.items()
                if number is None}

    def check(self, groups):
        """The devices must be grouped exactly so."""
        same_groups(self.partition(), groups)
        assert self.ungrouped() == self.machine.ungrouped(self.iommu), \
            f"without a group: {show([self.ungrouped()])}, expected: " \
            f"{show([self.machine.ungrouped(self.iommu)])}"


def partition(groups):
    """The groups as a set of sets, whatever their numbers."""
    found = {}
    for device, number in groups.items():
        if number is not None:
            found.setdefault(number, set()).add(device)
    return {frozenset(group) for group in found.values()}


def ids(running):
    """What each device's iommu_group/id says, by device, None without one.

    A file that did not end its line would show: the next device's name would
    follow in it.
    """
    listed = running.sh("cd /sys/bus/pci/devices; for d in *; do echo -n $d=; "
                        "if [ -e $d/iommu_group/id ]; then while read -r id; do "
                        "echo $id; done < $d/iommu_group/id; else echo; fi; done")
    pairs = (line.split("=", 1) for line in listed.splitlines())
    return {machine.short(device): text or None for device, text in pairs}


def members(running):
    groups, listed = running.sh("cd /sys/kernel/iommu_groups; echo *; "
                                "echo */devices/*").splitlines()
    found = {int(group): set() for group in groups.split() if group != "*"}
    for path in listed.split():
        group, _, device = path.split("/")
        if group != "*":
            found[int(group)].add(device)
    return found


def boot(name, iommu, cmdline=PLAIN, kernel=None):
    """Boots a machine, or gives what it showed when it was booted before.

    Threads that want the same boot wait for the one that does it. One that
    failed fails all tests that look at it, and is not tried again.
    """
    key = (name, iommu, cmdline, kernel or TESTED)
    with _lock:
        lock = _locks.setdefault(key, threading.Lock())
    with lock:
        if key not in _boots:
            try:
                _boots[key] = Boot(*key)
            except guest.GuestError as error:
                _boots[key] = error
        if isinstance(_boots[key], guest.GuestError):
            raise _boots[key]
        return _boots[key]


def requester_id(device):
    """With the segment above it, as the number of a group has it."""
    *segment, bus, function = device.rsplit(":", 2)
    return int(segment[0] if segment else "0", 16) << 16 | \
        acpi.requester_id(f"{bus}:{function}")


def numbered_by_requester_id(groups):
    """Each group has the Requester ID of its lowest member as its number."""
    for group in partition(groups):
        rid = min(map(requester_id, group))
        for device in group:
            assert groups[device] == rid, \
                f"{device} is in group {groups[device]}, not {rid}"


def ask(running, device):
    """What iommu_device_group() gives, by the module group_probe: error, number."""
    parameter = "/sys/module/group_probe/parameters/device"
    return running.sh(f"echo {machine.full(device)} > {parameter}; "
                      f"cat {parameter}")


def unbind(running, device):
    """Takes it from its driver, and leaves it without one."""
    running.sh(f"echo 0000:{device} > "
               f"/sys/bus/pci/devices/0000:{device}/driver/unbind")


def driver(running, device):
    path = f"/sys/bus/pci/devices/0000:{device}/driver"
    return running.run(f"readlink {path}")[1].strip().rpartition("/")[2]


def bind(running, devices):
    """Takes them from their drivers, if they have any, for vfio-pci."""
    for device in devices.split():
        running.sh(f"cd /sys/bus/pci/devices/0000:{device}; "
                   "echo vfio-pci > driver_override; "
                   f"[ ! -e driver ] || echo 0000:{device} > driver/unbind; "
                   f"echo 0000:{device} > /sys/bus/pci/drivers_probe")
        assert driver(running, device) == "vfio-pci", device


def vfio_name(running, device):
    """The file of a device in /dev/vfio/devices."""
    return running.sh(
        f"ls /sys/bus/pci/devices/0000:{device}/vfio-dev").strip()


def config(running, device):
    return base64.b64decode(running.sh(
        f"base64 /sys/bus/pci/devices/0000:{device}/config"))


def word(running, device, register):
    return struct.unpack_from("<H", config(running, device), register)[0]


def set_word(running, device, register, value):
    """Writes to configuration space, as setpci does."""
    low, high = value & 0xff, value >> 8
    running.sh(f"printf '\\x{low:02x}\\x{high:02x}' | dd bs=2 "
               f"seek={register // 2} conv=notrunc "
               f"of=/sys/bus/pci/devices/0000:{device}/config 2>/dev/null")
    found = word(running, device, register)
    assert found == value, f"{device}: {register:x} is {found:x}, not {value:x}"


def acs_control(running, device):
    """Where the device's ACS Control register is."""
    space = config(running, device)
    at = 0x100
    while at:
        header, = struct.unpack_from("<I", space, at)
        if header & 0xffff == ACS:
            return at + ACS_CONTROL
        at = header >> 20
    raise AssertionError(f"{device} has no ACS")


def to_own(running, way, device):
    """What vfio-claim has to be told to own a device by way of ..."""
    if way == "iommufd":
        return f"device {vfio_name(running, device)}"
    return f"group {running.groups()[device]}"


def claims(running, words):
    """What one process gets that tries to own these: each 0 or the errno."""
    said = running.sh(f"vfio-claim {words}")
    return [line.split()[1] for line in said.splitlines()]


def own(running, words):
    """Lets a process own what vfio-claim is told, and go on."""
    running.sh(f"vfio-claim hold {words} > /tmp/owner 2>&1 &")
    wanted = len([word for word in words.split()
                  if word not in ("together", "group", "device", "viable")])
    running.wait(lambda: len(running.read("/tmp/owner").splitlines())
                 == wanted, f"an owner of {words}")
    said = running.read("/tmp/owner")
    assert all(line.endswith(" 0") for line in said.splitlines()), said


def end(running, program):
    """Ends what runs beside the test, and waits until it is gone."""
    running.sh(f"killall {program}")
    running.wait(lambda: running.run(f"pidof {program}")[0],
                 f"{program} to end")


def printed(running, clear=False):
    """The kernel's log in lines without the times; it begins anew where it is cleared."""
    return [re.sub(r"^\[ *[0-9.]+\] ", "", line)
            for line in running.sh("dmesg -c" if clear else "dmesg").splitlines()]


def news(running):
    """What the kernel has printed since it was asked last."""
    return printed(running, clear=True)


def succeeds(run, *command, **options):
    """What a command prints, which run() gives with its exit status."""
    status, said = run(*command, **options)
    assert not status, f"{command} gives {status}: {said}"
    return said


def kselftest(running, program, variables, skipped=frozenset(), options=""):
    """Runs tests of selftests/vfio; of them these alone must be skipped.

    variables   the devices that it is given, by the names of its variables
    """
    given = " ".join(f"{name}={machine.full(device)}"
                     for name, device in variables.items())
    status, said = running.run(f"{given} {program} {options}", timeout=120)
    results = re.findall(r"^(ok|not ok) \d+ (\S+)(?: # (SKIP) .*)?$", said,
                         re.MULTILINE)
    plan = re.search(r"^1\.\.(\d+)$", said, re.MULTILINE)
    assert plan and int(plan[1]) == len(results) > 0, said
    assert not status and all(verdict == "ok" for verdict, _, _ in results), \
        f"{given}:\n{said}"
    found = {name.rpartition(".")[2] for _, name, skip in results if skip}
    assert found == skipped, f"{given} skips {found}:\n{said}"
    return said


# What vfio_group skips: of a device on a root bus, of one that is not edu, and
# of one that is alone in its group.
NO_RESET = {"hot_reset_names_groups"}
NO_DMA = {"dma_reaches_a_mapped_page", "dma_misses_an_unmapped_page"}
ALONE = {"second_owner_is_refused"}


def refused_as_shared(running, device):
    """Every way to own it is refused, and it is not said to be viable."""
    kselftest(running, "vfio_group", {"VFIO_GROUP_SHARED": device},
              options="-f shared")


def owned_as_whole(running, device, skipped=frozenset(), options="-f whole"):
    """Both ways to own it work, and DMA gets where it should and no further."""
    return kselftest(running, "vfio_group", {"VFIO_GROUP_WHOLE": device},
                     skipped, options)


def no_leaks(running):
    leaks = running.sh(LEAKS, timeout=120)
    assert not leaks, f"kmemleak: {leaks[:2000]}"


def show(groups):
    return " | ".join(sorted(" ".join(sorted(group)) for group in groups))


def same_groups(found, expected):
    assert found == expected, (
        "groups that must not be: " + (show(found - expected) or "none")
        + "\ngroups that are missing: " + (show(expected - found) or "none"))
