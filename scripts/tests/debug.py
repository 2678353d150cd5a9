"""The same on a kernel that looks for what tests do not: configs/debug.config.

Whatever it reports, KASAN, lockdep, kmemleak or another, fails the test, because
it is in the log; see guest.TROUBLE.
"""
import figures
import guest
import machine
from proof import VENDORS, partition, same_groups

# Old enough for kmemleak, and twice: it tells what both scans found.
LEAKS = ("sleep 6; cd /sys/kernel/debug; echo scan > kmemleak; "
         "echo scan > kmemleak; cat kmemleak")
FAULTS = 400


def no_leaks(running):
    leaks = running.sh(LEAKS, timeout=120)
    assert not leaks, f"kmemleak: {leaks[:2000]}"


def as_described(name, iommu):
    """Grouped as described, before and after its functions come and go."""
    described = machine.load(name)
    with guest.Guest(name, iommu, kernel="debug", log="debug-" + name) \
            as running:
        expected = described.expected(iommu)
        same_groups(partition(running.groups()), expected)
        # Not what is on bus 0 of its own accord, nor what has SR-IOV on.
        comers = [] if described.guest else \
            sorted(running.groups().keys() - {"00:00.0", "00:01.0", "00:1f.0"})
        for order in (comers, comers[::-1]):
            running.sh("cd /sys/bus/pci/devices; for d in " + " ".join(order)
                       + "; do [ ! -e 0000:$d ] || echo 1 > 0000:$d/remove; "
                       "done; echo 1 > /sys/bus/pci/rescan", timeout=60)
            same_groups(partition(running.groups()), expected)
        running.sh("for d in /sys/bus/pci/devices/*; do "
                   "cat $d/iommu_group_reason; done 2>/dev/null; true")
        no_leaks(running)


def every_allocation_fails():
    """One after the other, until a device is in its group.

    Under virtio-iommu a device is grouped when a driver binds it, so that
    little else is allocated before. Whatever fails, the device has a group with
    all that belongs to it or none of that, and the next try succeeds. What
    comes after grouping, the domain of the group, is stock's, and warns: the
    first allocation there to fail is the last one here.
    """
    device = "0000:00:06.0"
    path = f"/sys/bus/pci/devices/{device}"
    state = (f"cd {path}; for f in iommu_group iommu_group_reason "
             "iommu_group/id iommu_group/devices/" + device
             + "; do [ ! -e $f ] || echo $f; done; ls /sys/kernel/iommu_groups")
    bind = f"echo {device} > /sys/bus/pci/drivers_probe"
    added = f"dmesg | grep -c '{device}: Adding to iommu group 48: base'; true"
    failed = 0
    with guest.Guest("e1000e", "virtio", kernel="debug", log="faults") \
            as running:
        def make_new():
            running.sh(f"echo 1 > {path}/remove; echo 1 > /sys/bus/pci/rescan;"
                       f" echo vfio-pci > {path}/driver_override", timeout=60)

        running.sh("cd /sys/kernel/debug/failslab; echo 0 > verbose; "
                   "echo N > ignore-gfp-wait")
        grouped = running.sh(state)
        assert "48" in grouped.split(), grouped
        make_new()
        ungrouped = running.sh(state)
        assert "48" not in ungrouped.split(), ungrouped
        for nth in range(1, FAULTS):
            before = running.sh(added)
            running.sh(f"echo {nth} > /proc/self/fail-nth; {bind}; "
                       "echo 0 > /proc/self/fail-nth; true", timeout=60)
            now = running.sh(state)
            if running.sh(added) == before:
                assert now == ungrouped, \
                    f"allocation {nth} fails: {now.split()}"
                failed += 1
                running.sh(bind, timeout=60)
                assert running.sh(state) == grouped, \
                    f"after allocation {nth} failed, it can't be grouped"
            elif running.run(f"[ -e {path}/driver ]")[0]:
                break
            else:       # kmemleak's own, for one, can do without
                assert now == grouped, f"allocation {nth} fails: {now.split()}"
            make_new()
            assert running.sh(state) == ungrouped
        assert 20 <= failed < FAULTS - 1, f"{failed} allocations failed"
        make_new()
        running.sh(bind)
        assert running.sh(state) == grouped
        no_leaks(running)
        figures.add("allocations made to fail in grouping, one by one", failed)


def cases():
    for name in machine.names():
        for iommu in VENDORS:
            yield (f"{name}, {iommu}: groups are as described, devices come "
                   "and go, nothing is reported", as_described, name, iommu)
    yield ("every allocation fails in turn while a device is grouped, it has "
           "all of its group or nothing", every_allocation_fails)
