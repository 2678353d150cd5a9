# SPDX-License-Identifier: GPL-2.0-only
"""What people give devices away with does it: Debian's libvirt, and DPDK.

libvirt takes them from their drivers for a virtual machine, and gives them back
when it ends. On machines/switch, as below: the host uses a network device below a
port of its own. DPDK drives two network devices, joined by a cable, itself.

libvirt's is for make check, which sets LONG=1: it asks QEMU for all that it can do
before it starts one.
"""
import re

import guest
import machine
from fixtures import LONG, TESTED, VENDORS, driver, end, news

NEEDS = "userspace"
GUESTS, HOSTS = "03:00.0", "05:00.0"
SWITCH = ["xio3130-downstream,id=dn2,bus=up0,addr=2.0,chassis=4,slot=4",
          "virtio-net-pci,bus=dn2,addr=0.0,disable-legacy=on,iommu_platform=on"]
GROUP = 0x0200          # of GUESTS and the port above it
REFUSED = (f"iommu: group {GROUP}: refused: 0000:{HOSTS} (virtio-pci) can be "
           "reached past 0000:02:00.0: no ACS")
# Without KVM, and where each device is in it.
DOMAIN = ("<domain type='qemu'><name>{name}</name><memory unit='MiB'>96</memory>"
          "<os><type arch='x86_64' machine='pc'>hvm</type>{kernel}</os><devices>"
          "<controller type='usb' model='none'/><memballoon model='none'/>"
          "<serial type='file'><source path='/tmp/{name}.log'/></serial>"
          "{devices}</devices></domain>")
NESTED = ("<kernel>/nested/bzImage</kernel>"
          "<initrd>/nested/initramfs.cpio</initrd><cmdline>earlyprintk=ttyS0 "
          "console=ttyS0 no_timer_check</cmdline>")
EDU = "010000ed"        # what its memory starts with
VIRTIO_NET = "1af4:1041"

# What DPDK is built for, and QEMU's default for CPUs lacks.
CPU = ",+ssse3,+sse4.1,+sse4.2,+popcnt"
CABLE = [word for end_of_it in ("net0", "net1")
         for word in ("-netdev", f"hubport,id={end_of_it},hubid=0")]
# Where its devices are, with the numbers of their groups. Intel's are below ports
# of the second root bus. QEMU's amd-iommu translates nothing there; under AMD one
# comes late, when its own number is held.
ROOT_PORTS = [f"pcie-root-port,id=rp{at},bus=pxb0,addr={at - 1}.0,chassis={at + 5},"
              f"slot={at + 5}" for at in (2, 3)]
LATE = "00:04.0"
DPDK = {"intel": {"42:00.0": 0x4200, "43:00.0": 0x4300},
        "amd": {LATE: 0x7fff0000, "00:05.0": 0x0028}}
NICS = {"intel": [*ROOT_PORTS, "e1000e,bus=rp2,addr=0.0,netdev=net0",
                  "e1000e,bus=rp3,addr=0.0,netdev=net1"],
        "amd": ["e1000e,bus=pcie.0,addr=4.0,netdev=net0",
                "e1000e,bus=pcie.0,addr=5.0,netdev=net1"]}
# No hugepages, and each packet that comes in goes out of the other one.
TESTPMD = ("dpdk-testpmd --no-huge -m 64 --no-shconf --no-telemetry "
           "--iova-mode=va -l 0,1 {devices} -- --tx-first "
           "--total-num-mbufs=2048 --stats-period=1")


def virsh(running, words):
    return running.sh(f"virsh -c qemu:///system {words}")


def define(running, name, devices, kernel=""):
    """A domain with devices, by slot: as lsiommu has them, but for libvirt to bind."""
    def hostdev(slot, device):
        said = "".join(running.sh(f"lsiommu --handover {device}").splitlines())
        found = re.search(r"<hostdev .*?</hostdev>", said)[0]
        assert " managed='no'>" in found, found
        return found.replace("'no'", "'yes'").replace(
            "</hostdev>", f"<address type='pci' slot='{slot}'/></hostdev>")
    domain = DOMAIN.format(name=name, kernel=kernel, devices="".join(
        hostdev(*given) for given in devices.items()))
    running.sh(f'echo "{domain}" > /tmp/{name}.xml')
    virsh(running, f"define /tmp/{name}.xml")


def owner(running, device):
    return running.read(f"/sys/bus/pci/devices/0000:{device}/iommu_group/state")


def interface(running):
    """The host's network device: other numbers are another one."""
    return running.sh(f"cd /sys/bus/pci/devices/0000:{HOSTS}; "
                      "cat virtio*/net/*/ifindex virtio*/net/*/flags")


def given_and_back(running):
    """Its guest's kernel finds it, and the host has it back afterwards."""
    define(running, "kernel", {5: HOSTS}, NESTED)
    virsh(running, "start kernel")
    assert driver(running, HOSTS) == "vfio-pci"
    assert owner(running, HOSTS) == "owned\n", owner(running, HOSTS)
    running.wait(lambda: f"pci 0000:00:05.0: [{VIRTIO_NET}]" in
                 running.read("/tmp/kernel.log"),
                 "a kernel in it to find the device", timeout=600)
    virsh(running, "destroy kernel")
    assert driver(running, HOSTS) == "virtio-pci"
    assert interface(running)


def refused(running):
    """It does not start, and nothing happens to what the host has."""
    define(running, "refused", {5: GUESTS})
    running.sh(f"ifconfig $(ls /sys/bus/pci/devices/0000:{HOSTS}/virtio*/net) up")
    before = interface(running)
    news(running)
    status, said = running.run("virsh -c qemu:///system start refused")
    lines = news(running)
    assert status, said
    # QEMU's words for what VFIO_GROUP_GET_STATUS says, which virsh passes on.
    assert f"{GUESTS}: group {GROUP} is not viable" in said, said
    assert REFUSED in lines, lines
    state = virsh(running, "domstate refused")
    assert state.strip() == "shut off", state
    assert driver(running, GUESTS) != "vfio-pci"
    assert interface(running) == before, (before, interface(running))


def both(running):
    """What reach each other go to one domain, whose firmware sees them."""
    define(running, "both", {5: GUESTS, 6: HOSTS})
    news(running)
    virsh(running, "start both")
    lines = [line for line in news(running) if " past " in line]
    assert not lines, lines

    def monitor(words):
        return virsh(running, f"qemu-monitor-command both --hmp '{words}'")

    seen = re.compile(r"device +5,.*?BAR0: 32 bit memory at 0x([0-9a-f]{8}) "
                      rf".*device +6,.*?{VIRTIO_NET}", re.DOTALL)
    running.wait(lambda: seen.search(monitor("info pci")),
                 "the firmware to see both", timeout=600)
    address = seen.search(monitor("info pci"))[1]
    running.wait(lambda: f"0x{EDU}" in monitor(f"xp /1wx 0x{address}"),
                 f"{GUESTS} to answer")
    virsh(running, "destroy both")
    assert driver(running, HOSTS) == "virtio-pci"
    assert interface(running)


def libvirt(iommu):
    # QEMU's amd-iommu translates nothing below a switch, where the host's device is.
    more = " iommu=pt" if iommu == "amd" else ""
    with guest.Debian("switch", iommu, TESTED, log="libvirt", more=SWITCH,
                      cmdline="iommu.reach=refuse" + more) as running:
        running.sh("libvirtd -d")
        for step in given_and_back, refused, both:
            step(running)


def by_devbind(running, title):
    """The devices that it has under a title."""
    status = running.sh("dpdk-devbind.py --status")
    block = re.search(rf"^{title}\n=+\n(.*?)(?:\n\n|\Z)", status,
                      re.MULTILINE | re.DOTALL)
    assert block, status
    return re.findall(r"^0000:(\S+) ", block[1], re.MULTILINE)


def received(running):
    """How many packets each device has got so far, by its number in testpmd."""
    said = running.sh("cat /tmp/testpmd; pidof dpdk-testpmd")
    return {port: int(count) for port, count in re.findall(
        r"NIC statistics for port (\d) .*\n +RX-packets: (\d+) ", said)}


def dpdk(iommu):
    """What one sends the other gets: each reads and writes memory by itself."""
    cpu = guest.IOMMU[iommu][1] + CPU
    with guest.Debian("pxb", iommu, TESTED, more=NICS[iommu], log="dpdk",
                      besides=["-cpu", cpu, *CABLE]) as running:
        if LATE in DPDK[iommu] and TESTED != "stock":
            running.sh(f"insmod /group_probe.ko; echo 0000:{LATE} > "
                       "/sys/module/group_probe/parameters/hold; "
                       f"echo 1 > /sys/bus/pci/devices/0000:{LATE}/remove; "
                       "echo 1 > /sys/bus/pci/rescan")
        groups = running.groups()
        found = {device: groups[device] for device in DPDK[iommu]}
        assert found == DPDK[iommu], found

        running.sh("dpdk-devbind.py --bind=vfio-pci "
                   + " ".join(map(machine.full, found)))
        bound = by_devbind(running, "Network devices using DPDK-compatible driver")
        assert bound == sorted(found), bound

        running.sh(TESTPMD.format(devices=" ".join(
            f"-a {machine.full(device)}" for device in found))
            + " > /tmp/testpmd 2>&1 &")
        # More than the burst that it begins with.
        running.wait(lambda: [count > 100 for count in
                              received(running).values()] == [True, True],
                     "both devices to get packets", timeout=600)
        for number in found.values():
            state = running.read(f"/sys/kernel/iommu_groups/{number}/state")
            assert state == "owned\n", state
        end(running, "dpdk-testpmd")
        for number in found.values():
            state = running.read(f"/sys/kernel/iommu_groups/{number}/state")
            assert state == "idle\n", state


def cases():
    for iommu in VENDORS:
        if LONG:
            yield (f"{iommu}, refuse: virsh starts a domain with a device of the host's, "
                   "which gets it back; one that reaches the host's device does not "
                   "start; one with both starts", libvirt, iommu)
        yield (f"{iommu}: dpdk-devbind.py takes two devices of groups "
               f"{' and '.join(map(str, DPDK[iommu].values()))}, and "
               "dpdk-testpmd has them exchange packets", dpdk, iommu)
