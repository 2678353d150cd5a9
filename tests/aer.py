# SPDX-License-Identifier: GPL-2.0-only
"""Recovery from PCIe errors goes on beside whatever binds, rescans and owns.

AER walks buses with pci_bus_sem held and takes the lock of each device. Who binds a
driver has that lock and asks what reaches the device, and a rescan waits to change
what is walked. So nothing that the IOMMU's locks are held for may want pci_bus_sem,
or all of them wait for each other for good; lockdep does not know device locks well
enough to tell.
"""
import guest
from fixtures import TESTED, VENDORS, Skip, bind, driver

NEEDS = "guest"
# One more port of machines/root-ports, and what the host binds below it, several so
# that one waits while the walk is at another. Their driver does not know how to
# recover, so the kernel gives them up until they are found again.
PORT = "00:05.0"
HOSTS = ("05:00.0", "05:00.1", "05:00.2")
MORE = ["pcie-root-port,id=rp4,bus=pcie.0,addr=5.0,chassis=5,slot=5,hotplug=off",
        "virtio-rng-pci,bus=rp4,addr=0.0,multifunction=on",
        "virtio-rng-pci,bus=rp4,addr=0.1", "virtio-rng-pci,bus=rp4,addr=0.2"]
# What the port reports: an error that leaves the link as it is, and one that does
# not, by the names that QEMU has for them.
ERRORS = ("COMP_TIME", "SDN") * 4
OWNED, OTHER = "01:00.0", "04:00.0"
BINDING = "/sys/bus/pci/drivers/virtio-pci"
MEANWHILE = {
    **{f"bind-{device}": f"echo 0000:{device} > {BINDING}/unbind; "
                         f"echo 0000:{device} > {BINDING}/bind"
       for device in HOSTS},
    "rescan": f"echo 1 > /sys/bus/pci/devices/0000:{OTHER}/remove; "
              "echo 1 > /sys/bus/pci/rescan",
    "own": "vfio-claim group {group}"}


def find_again(running):
    running.sh("cd /sys/bus/pci; "
               + " ".join(f"echo 1 > devices/0000:{device}/remove;"
                          for device in HOSTS) + " echo 1 > rescan")


def recoveries(running):
    return int(running.run("dmesg | grep -c ': device recovery '")[1])


def nobody_hangs(iommu):
    with guest.Guest("root-ports", iommu, kernel=TESTED, log="aer",
                     more=MORE) as running:
        port = f"/sys/bus/pci/devices/0000:{PORT}"
        if running.run(f"[ -e {port}/aer_rootport_total_err_nonfatal ]")[0]:
            raise Skip("this kernel has no AER: CONFIG_PCIEAER is not set")
        bind(running, OWNED)
        group = running.groups()[OWNED]
        # Much is printed here, and the serial port is slow.
        running.sh("dmesg -n 5")
        for name, does in MEANWHILE.items():
            running.sh("{ n=0; while [ ! -e /tmp/stop ]; do "
                       f"{does.replace('{group}', str(group))}; n=$((n + 1)); "
                       f"done; echo $n > /tmp/{name}; }} > /dev/null 2>&1 &")
        for nth, error in enumerate(ERRORS):
            find_again(running)
            running.qmp("human-monitor-command", **{
                "command-line": f"pcie_aer_inject_error rp4 {error}"})
            running.wait(lambda: recoveries(running) > nth,
                         f"recovery from error {nth + 1}")
        running.sh("touch /tmp/stop")
        for name in MEANWHILE:
            running.wait(lambda: running.run(f"[ -s /tmp/{name} ]")[0] == 0,
                         f"an end of what others do: {name}")
            times = int(running.read(f"/tmp/{name}"))
            assert times >= len(ERRORS), f"{name}: {times} times"
        find_again(running)
        for device in HOSTS:
            assert driver(running, device) == "virtio-pci", device


def cases():
    for iommu in VENDORS:
        yield (f"{iommu}: recovery from errors, binding, rescans and owners wait "
               "for each other, but not for good", nobody_hangs, iommu)
