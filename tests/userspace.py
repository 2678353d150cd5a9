# SPDX-License-Identifier: GPL-2.0-only
"""Debian's own programs read groups as they do on stock, and QEMU gets devices.

What reads groups runs in a guest on machines/pxb, which has a bus 0x41, and so a
group 16640. One more device is in a group that has the first number of those
without a Requester ID, as its own is held. QEMU is given those two as well, and the
two on machines/switch, which reach each other.
"""
import re
import xml.etree.ElementTree

import guest
import machine
from fixtures import LONG, TESTED, VENDORS, bind, driver, end, news, partition, \
    same_groups, some

NEEDS = "stock userspace"
LARGE, LATE = "41:00.0", "00:04.0"
NUMBERS = {LARGE: 0x4100, LATE: 0x7fff0000}
# For the late device, a driver that driverctl has to take it from.
MORE = ["virtio-rng-pci,bus=pcie.0,addr=4.0"]

# Where they have the number of a group.
LSPCI = ("lspci -Dv", "lspci -Dvv", "lspci -Dvmm")
LSPCI_GROUP = re.compile(r"IOMMU ?[Gg]roup:?\s+(\d+)")
VIRSH_GROUP = re.compile(r"iommuGroup number='(\d+)'")

# Two devices of machines/switch that reach each other, the ports above them, their
# groups, and the slots that they have in the guest of the guest.
SWITCH = {"03:00.0": 5, "04:00.0": 6}
PORT = {"03:00.0": "02:00.0", "04:00.0": "02:01.0"}
GROUP = {"03:00.0": 512, "04:00.0": 520}
POLICY = "/sys/module/iommu/parameters/reach"
EDU = "010000ed"        # what the memory of these starts with

QEMU = ("qemu-system-x86_64 -accel tcg -m 64 -nodefaults -no-user-config "
        "-display none ")
# Without a vIOMMU all devices are in one container, with it each has its own.
CHIPSET = {False: "-machine pc ",
           True: "-machine q35 -device intel-iommu,caching-mode=on "}
# A kernel in it has a console for its log, and one to be asked on.
NESTED = ("-serial file:/tmp/nested.log -serial pipe:/tmp/agent "
          "-kernel /nested/bzImage -initrd /nested/initramfs.cpio "
          "-append 'console=ttyS0 panic=-1 no_timer_check "
          "rcupdate.rcu_cpu_stall_suppress=1' ")


class Userspace(guest.Debian):
    """With LATE having come late."""

    def __init__(self, iommu, kernel=TESTED):
        super().__init__("pxb", iommu, kernel, more=MORE, log="userspace")
        if kernel != "stock":
            self.sh(f"insmod /group_probe.ko; echo 0000:{LATE} > "
                    "/sys/module/group_probe/parameters/hold")
        self.sh(f"echo 1 > /sys/bus/pci/devices/0000:{LATE}/remove; "
                "echo 1 > /sys/bus/pci/rescan")
        if kernel == TESTED:
            found = {device: self.groups()[device] for device in NUMBERS}
            assert found == NUMBERS, found


def by_lspci(text):
    """Each device and the number of its group, as lspci has them."""
    found = {}
    for block in text.strip().split("\n\n"):
        device = re.search(r"[0-9a-f]{4}:\S+", block)[0]
        number = LSPCI_GROUP.search(block)
        found[machine.short(device)] = int(number[1]) if number else None
    return found


def by_virsh(text):
    """Number and members of a device's group, None and none without one."""
    group = xml.etree.ElementTree.fromstring(text).find(".//iommuGroup")
    if group is None:
        return None, set()
    members = {"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}".format(
        **{key: int(value, 16) for key, value in address.items()})
        for address in group}
    return int(group.get("number")), set(map(machine.short, members))


def override(running, device):
    """Has driverctl give it to vfio-pci, which makes the node of its group."""
    node = f"/dev/vfio/{running.groups()[device]}"
    assert running.run(f"[ -e {node} ]")[0], f"{node} is there already"
    running.sh(f"driverctl set-override 0000:{device} vfio-pci")
    assert driver(running, device) == "vfio-pci", driver(running, device)
    running.sh(f"[ -c {node} ]")


def answers(iommu, kernel):
    """What the programs say, and that it is what sysfs says.

    In the answers a group's lowest member stands for its number, and interrupts
    have none, as these may come in another order.
    """
    with Userspace(iommu, kernel) as running:
        groups = running.groups()
        said = {}

        def keep(command, text, pattern):
            def member(number):
                return number[0].replace(number[1], min(
                    device for device in groups
                    if groups[device] == int(number[1])))
            said[command] = re.sub(r"IRQ \d+", "IRQ", pattern.sub(member, text))

        for command in LSPCI:
            text = running.sh(command)
            assert by_lspci(text) == groups, f"{command}:\n{text}\n{groups}"
            keep(command, text, LSPCI_GROUP)

        running.sh("/lib/systemd/systemd-udevd --daemon && udevadm trigger && "
                   "udevadm settle && libvirtd -d")
        nodes = running.sh("virsh -c nodedev:///system nodedev-list pci")
        assert len(nodes.split()) == len(groups), nodes
        for device, number in groups.items():
            command = "virsh -c nodedev:///system nodedev-dumpxml " \
                "pci_0000_" + re.sub("[:.]", "_", device)
            text = running.sh(command)
            members = {other for other in groups
                       if number is not None and groups[other] == number}
            assert by_virsh(text) == (number, members), \
                f"{text}\nnot {number}: {members}"
            keep(command, text, VIRSH_GROUP)

        for device in NUMBERS:
            override(running, device)
        command = "driverctl list-devices; driverctl list-overrides"
        said[command] = running.sh(command)
        return partition(groups), said


def same_on_stock(iommu):
    groups, ours = answers(iommu, TESTED)
    stocks, stock = answers(iommu, "stock")
    same_groups(groups, stocks)
    for command, text in stock.items():
        assert ours[command] == text, \
            f"{command}:\n{ours[command]}\nstock:\n{text}"


def given(device, slot):
    return f"-device vfio-pci,host=0000:{device},addr={slot:x}.0 "


def as_lsiommu_says(running, device, slot):
    """The same in lsiommu's words."""
    option, = re.findall(r"^  (-device .*)$", running.sh(f"lsiommu --handover {device}"),
                         re.MULTILINE)
    return f"{option},addr={slot:x}.0 "


def boot_nested(running, options):
    """Boots a kernel in QEMU, to be asked by ask_nested()."""
    # Where QEMU ends, the reader must not wait for it.
    running.sh("mkfifo /tmp/agent.in /tmp/agent.out; "
               f"{{ {QEMU} {NESTED} {options}; echo ended > /tmp/agent.out; }} "
               "> /tmp/nested 2>&1 &")


def ask_nested(running, command):
    """What a shell command prints there, the first one that is asked."""
    status, said = running.run(
        "exec < /tmp/agent.out; read word && [ $word = ready ] && "
        f"echo '{command}' > /tmp/agent.in && read length status && "
        "head -c $length || { cat /tmp/nested /tmp/nested.log; false; }")
    assert not status, said
    return said


def start_qemu(running, options):
    """Without a kernel: the firmware sees the devices, and its monitor shows it."""
    running.sh("[ -e /tmp/monitor ] || mkfifo /tmp/monitor; "
               f"{QEMU} {options} -monitor stdio <> /tmp/monitor "
               "> /tmp/said 2>&1 &")


def ask_qemu(running, words):
    """What the monitor says since the last time."""
    return running.sh(f"echo '{words}' > /tmp/monitor; sleep 0.3; cat /tmp/said; "
                      "pidof qemu-system-x86_64 > /dev/null")


def by_slot(running):
    """What the monitor says of each device, by its slot."""
    return {int(re.search(r"device +(\d+),", block)[1]): block for block in
            ask_qemu(running, "info pci").split(" Bus ")[1:]}


def assigned(iommu):
    """The firmware gives each device its addresses, so it is there and answers."""
    with Userspace(iommu) as running:
        options, expected = CHIPSET[False], {}
        for slot, device in enumerate(NUMBERS, 5):
            override(running, device)
            options += as_lsiommu_says(running, device, slot)
            expected[slot] = running.sh(
                f"cd /sys/bus/pci/devices/0000:{device}; "
                "sed 's/^0x//' vendor device | paste -sd :").strip()
        start_qemu(running, options)

        def placed():
            found = {slot: re.search(r"PCI device (\S+)", block)[1]
                     for slot, block in by_slot(running).items()
                     if re.search(r" BAR\d: .* at 0x(?!f+ )", block)}
            return found.items() >= expected.items()

        running.wait(placed, f"the firmware to see {expected}", timeout=300)
        end(running, "qemu-system-x86_64")


def must_see(running, devices):
    """The firmware gave each device its addresses, and its memory answers."""
    found = {}

    def placed():
        for slot, block in by_slot(running).items():
            bar = re.search(r" BAR0: 32 bit memory at (0x[0-9a-f]{8}) ", block)
            if bar:
                found[slot] = bar[1]
        return found.keys() >= {SWITCH[device] for device in devices}

    running.wait(placed, "the firmware to see its devices", timeout=300)
    for device in devices:
        address = found[SWITCH[device]]
        running.wait(lambda: f"{address[2:]}: 0x{EDU}" in
                     ask_qemu(running, f"xp /1wx {address}"),
                     f"{device} to answer")


def containers(running):
    """How many the one QEMU that runs has."""
    links = running.sh("ls -l /proc/$(pidof qemu-system-x86_64)/fd")
    return sum(link.endswith("/dev/vfio/vfio") for link in links.splitlines())


def reach_lines(running):
    return [line for line in news(running) if " past " in line]


def in_one_machine(policy):
    """In either order; its guest sees both."""
    with guest.Debian("switch", "intel", TESTED, log="nested",
                      cmdline=f"iommu.reach={policy}") as running:
        bind(running, " ".join(SWITCH))
        reach_lines(running)
        for viommu, chipset in CHIPSET.items():
            for order in list(SWITCH), list(SWITCH)[::-1]:
                start_qemu(running, chipset + "".join(
                    given(device, SWITCH[device]) for device in order))
                must_see(running, order)
                assert containers(running) == (2 if viommu else 1)
                end(running, "qemu-system-x86_64")
                lines = reach_lines(running)
                assert not lines, lines


def in_two_machines():
    """The second does not start under refuse, and starts with a line under warn."""
    first, second = SWITCH
    line = (f"iommu: group {GROUP[second]}: {{}}0000:{first} (another owner) can "
            f"be reached past 0000:{PORT[second]}: no ACS")
    with guest.Debian("switch", "intel", TESTED, log="nested") as running:
        bind(running, " ".join(SWITCH))
        for chipset in CHIPSET.values():
            # What was claimed under refuse is not for others under warn either.
            running.sh(f"echo warn > {POLICY}")
            start_qemu(running, chipset + given(first, SWITCH[first]))
            must_see(running, [first])
            # One that starts is told to end at once.
            start = f"echo quit | {QEMU} {chipset} " \
                f"{given(second, SWITCH[second])} -S -monitor stdio"
            for policy, granted in ("refuse", False), ("warn", True):
                running.sh(f"echo {policy} > {POLICY}")
                reach_lines(running)
                status, said = running.run(start)
                assert granted == (status == 0), said
                assert granted or "not permitted" in said, said
                lines = reach_lines(running)
                assert lines == [line.format("" if granted else "refused: ")], \
                    lines
            end(running, "qemu-system-x86_64")
            running.sh(f"echo refuse > {POLICY}")
            running.sh(start)
            assert not reach_lines(running)


def kernel_with_viommu():
    """Of which each device is in a group of its own, and answers."""
    with guest.Debian("switch", "intel", TESTED, log="nested",
                      cmdline="iommu.reach=refuse") as running:
        bind(running, " ".join(SWITCH))
        boot_nested(running, CHIPSET[True] + "".join(
            given(device, slot) for device, slot in SWITCH.items()))
        said = ask_nested(
            running, "cd /sys/bus/pci/devices; for s in "
            + " ".join(map(str, SWITCH.values())) + "; do d=0000:00:0$s.0; "
            "echo 1 > $d/enable; echo $(cat $d/iommu_group/id) "
            "$(ls $d/iommu_group/devices) $(pci-peek $d); done")
        assert said.splitlines() == [
            f"{slot << 3} 0000:00:0{slot}.0 {EDU}"
            for slot in SWITCH.values()], said
        assert containers(running) == 2
        assert not reach_lines(running)


def without_iommu():
    """udev makes a link to the node that VFIO makes then, as to any other."""
    with guest.Debian("demo", "none", TESTED, log="noiommu",
                      cmdline="vfio.enable_unsafe_noiommu_mode=1") as running:
        running.sh("/lib/systemd/systemd-udevd --daemon; udevadm settle")
        bind(running, "02:00.0")
        running.sh("udevadm settle")
        links = dict(line.split()[-3::2] for line in running.sh(
            "ls -l /dev/vfio/by-path").splitlines() if "->" in line)
        assert links.pop("00:03.1-00.0-group") == "../noiommu-512", links
        # 7.3 makes a node of the device as well.
        assert links in ({}, {"00:03.1-00.0-device": "../devices/noiommu-vfio0"}), links
        assert running.sh("lsiommu --path /dev/vfio/by-path/00:03.1-00.0-group") \
            == "00:03.1/00.0  0000:02:00.0\n"


def cases():
    for iommu in VENDORS:
        yield (f"{iommu}: lspci, virsh and driverctl read groups as sysfs has "
               "them, and as on stock", same_on_stock, iommu)
    # AMD's would be the same.
    yield ("QEMU in a guest assigns devices from groups "
           f"{' and '.join(map(str, NUMBERS.values()))} as lsiommu --handover has it, "
           "and its firmware sees them", assigned, "intel")
    # Intel's, as QEMU 7.2's amd-iommu translates nothing below a switch.
    for policy in some(("refuse", "warn")):
        yield (f"{policy}: QEMU in a guest gets two devices of a switch that "
               "reach each other, in either order, without a vIOMMU and with one, "
               "which takes a container each", in_one_machine, policy)
    yield ("QEMU in a guest is refused a device of a switch under refuse while "
           "another QEMU has what it reaches, and warned of under warn",
           in_two_machines)
    if LONG:
        yield ("refuse: a kernel in QEMU in a guest sees two devices that reach each "
               "other in a group each of its vIOMMU", kernel_with_viommu)
    yield "without an IOMMU udev links a device's path to its group's node", without_iommu
