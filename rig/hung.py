# SPDX-License-Identifier: GPL-2.0-only
"""Guests that hang while they boot, and whose fault that is.

Under TCG on a busy host a boot in thousands hangs, stock or not. Of 7.x it is known why:
clocksource's watchdog has one CPU wait for another, with interrupts off, till a time has
passed; before fs_initcall, time is in jiffies, which the CPU that waits does not count.

Nothing that groups has run before rootfs_initcall, when the first IOMMU driver begins.
PCI prints its last line before that at fs_initcall_sync. Only while devices are found
the series notes what grouping will ask: a hang there has to be seen to be the watchdog's.
"""
import re

# Seconds in which a guest that boots prints nothing; those that look for bugs are slow.
QUIET, QUIET_WHERE_SLOW = 150, 300
# What QEMU is asked of it
STATE = ("info status", "info registers -a", "info irq", "info pic", "info lapic 0",
         "info lapic 1")
WATCHDOG = "watchdog_check_skew"
TOO_LATE = re.compile("PCI: CLS|Adding to iommu group|Run /init")
FINDING = "PCI host bridge to bus"
FOUND = re.compile("PCI: (Using ACPI for IRQ routing|Probing PCI hardware)")


def places(state, symbols):
    """The function that each CPU is in, by the text of a System.map."""
    known = [(int(at, 16), name) for at, _, name in map(str.split, symbols.splitlines())]
    addresses = [int(at, 16) for at in re.findall(r"\b(?:RIP|PC)=([0-9a-f]+)", state)]
    return [max(((at, name) for at, name in known if at <= address),
                default=(0, hex(address)))[1] for address in addresses]


def is_excused(log, where):
    """Is a hang after this log, with CPUs in these functions, surely not the series'?"""
    if TOO_LATE.search(log):
        return False
    return FINDING not in log or bool(FOUND.search(log)) or WATCHDOG in where
