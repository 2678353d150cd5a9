"""Debian's own programs read groups as they do on stock, large numbers included.

They run in a guest on machines/pxb, which has a bus 0x41, and so a group 16640.
One more device is in a group that has the first number of those without a
Requester ID, as its own is held.
"""
import re
import xml.etree.ElementTree

import guest
import machine
from proof import KERNEL, VENDORS, driver, partition, same_groups

PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
LARGE, LATE = "41:00.0", "00:04.0"
NUMBERS = {LARGE: 0x4100, LATE: 0x7fff0000}
# For the late device, a driver that driverctl has to take it from.
MORE = ["virtio-rng-pci,bus=pcie.0,addr=4.0"]

# Where they have the number of a group.
LSPCI = ("lspci -Dv", "lspci -Dvv", "lspci -Dvmm")
LSPCI_GROUP = re.compile(r"IOMMU ?[Gg]roup:?\s+(\d+)")
VIRSH_GROUP = re.compile(r"iommuGroup number='(\d+)'")

# The guest of the guest has a console for its log, and one to be asked on.
NESTED = ("qemu-system-x86_64 -accel tcg -machine pc -m 64 -nodefaults "
          "-no-user-config -display none -serial file:/tmp/nested.log "
          "-serial pipe:/tmp/agent -kernel /nested/bzImage "
          "-initrd /nested/initramfs.cpio -append 'console=ttyS0 panic=-1 "
          "no_timer_check rcupdate.rcu_cpu_stall_suppress=1' ")


class Userspace(guest.Guest):
    """With LATE having come late, and Debian's programs in the path."""

    def __init__(self, iommu, kernel=KERNEL):
        super().__init__("pxb", iommu, kernel=kernel, more=MORE,
                         log="userspace", userspace=True)
        if kernel != "stock":
            self.sh(f"insmod /group_probe.ko; echo 0000:{LATE} > "
                    "/sys/module/group_probe/parameters/hold")
        self.sh(f"echo 1 > /sys/bus/pci/devices/0000:{LATE}/remove; "
                "echo 1 > /sys/bus/pci/rescan")
        if kernel == KERNEL:
            found = {device: self.groups()[device] for device in NUMBERS}
            assert found == NUMBERS, found

    def run(self, command, timeout=30):
        # On a busy host these programs take minutes.
        return super().run(f"export {PATH}; {command}", max(timeout, 600))


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
    groups, ours = answers(iommu, KERNEL)
    stocks, stock = answers(iommu, "stock")
    same_groups(groups, stocks)
    for command, text in stock.items():
        assert ours[command] == text, \
            f"{command}:\n{ours[command]}\nstock:\n{text}"


def assigned(iommu):
    with Userspace(iommu) as running:
        options = ""
        expected = {}
        for slot, device in enumerate(NUMBERS, 5):
            override(running, device)
            options += f" -device vfio-pci,host=0000:{device},addr={slot}.0"
            expected[f"0000:00:{slot:02x}.0"] = running.sh(
                f"cd /sys/bus/pci/devices/0000:{device}; "
                "sed 's/^0x//' vendor device | paste -sd :").strip()
        # Where QEMU ends, the reader must not wait for it.
        running.sh("mkfifo /tmp/agent.in /tmp/agent.out; "
                   f"{{ {NESTED} {options}; echo ended > /tmp/agent.out; }} "
                   "> /tmp/nested 2>&1 &")
        status, said = running.run(
            "exec < /tmp/agent.out; read word && [ $word = ready ] && "
            "echo lspci > /tmp/agent.in && read length status && "
            "head -c $length || { cat /tmp/nested /tmp/nested.log; false; }")
        assert not status, said
        found = {device: number for device, _, number, *_ in
                 map(str.split, said.splitlines())}
        for device, number in expected.items():
            assert found.get(device) == number, \
                f"{device} is not {number}:\n{said}"


def cases():
    for iommu in VENDORS:
        yield (f"{iommu}: lspci, virsh and driverctl read groups as sysfs has "
               "them, and as on stock", same_on_stock, iommu)
    # A minute, or two on a busy host, and AMD's would be the same.
    yield ("QEMU in a guest assigns devices from groups "
           f"{' and '.join(map(str, NUMBERS.values()))}, and its guest sees "
           "them", assigned, "intel")
