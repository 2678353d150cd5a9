# SPDX-License-Identifier: GPL-2.0-only
"""Firmware tables that say what QEMU's own do not.

The kernel takes a table from the initramfs in place of the firmware's if it has
the same signature and names and a higher revision. So each of these is QEMU's
table for the same machine, changed.
"""
import pathlib
import struct
import subprocess
import tempfile

HEADER = 36             # of every table; revision of the maker's at 24, sum at 9
BODY = 48               # where the structures of a DMAR or IVRS begin
RESERVED = 0xfeffc000   # what q35's memory map has for firmware


def requester_id(device):
    bus, slot, function = device.replace(".", ":").split(":")
    return int(bus, 16) << 8 | int(slot, 16) << 3 | int(function)


def _structures(table, length_at):
    """Each structure in the table, as bytes; its length is 16 bits wide."""
    at = BODY
    while at < len(table):
        size, = struct.unpack_from("<H", table, at + length_at)
        yield table[at:at + size]
        at += size


def _finish(table):
    """With its length, a higher revision and the sum that makes it valid."""
    table = bytearray(table)
    struct.pack_into("<I", table, 4, len(table))
    revision, = struct.unpack_from("<I", table, 24)
    struct.pack_into("<I", table, 24, revision + 1)
    table[9] = 0
    table[9] = -sum(table) & 0xff
    return bytes(table)


def ivrs_aliases(table, aliases):
    """IVRS in which devices have aliases: pairs of device and alias.

    An alias select entry (AMD I/O Virtualization Technology, device entries of
    an IVHD block) goes to the end of each block.
    """
    entries = b"".join(
        struct.pack("<BHBBHB", 66, requester_id(device), 0, 0,
                    requester_id(alias), 0) for device, alias in aliases)
    blocks = []
    for block in _structures(table, 2):
        block = bytearray(block + entries)
        struct.pack_into("<H", block, 2, len(block))
        blocks.append(bytes(block))
    return _finish(table[:BODY] + b"".join(blocks))


def ivrs_names(table, named):
    """IVRS with devices that only ACPI knows: pairs of _HID and Requester ID's device.

    An ACPI HID device entry is for blocks of type 40h, which have 16 bytes more ahead
    of the entries than those of type 10h.
    """
    entries = b"".join(
        struct.pack("<BHB8s8sBB", 0xf0, requester_id(device), 0, hid.encode(), b"", 0, 0)
        for hid, device in named)
    block = next(_structures(table, 2))
    if block[0] != 0x10:
        raise ValueError(f"the first block is of type {block[0]:02x}h, not 10h")
    block = bytearray(b"\x40" + block[1:24] + bytes(16) + block[24:] + entries)
    struct.pack_into("<H", block, 2, len(block))
    return _finish(table[:BODY] + bytes(block))


def dmar(table, changes):
    """DMAR with changes, each a word and a device of bus 0.

    without     the device is in no unit's scope: QEMU lists every device, and one that
                no unit lists is not translated
    rmrr        firmware wants a range of memory mapped 1:1 for the device
    """
    gone = {requester_id(device) for word, device in changes if word == "without"}
    units = []
    for unit in _structures(table, 2):
        if unit[0] == 0:        # DRHD, whose device scope entries are at 16
            at, kept = 16, unit[:16]
            while at < len(unit):
                entry = unit[at:at + unit[at + 1]]
                kind, bus, slot, function = entry[0], *entry[5:8]
                if kind > 2 or bus << 8 | slot << 3 | function not in gone:
                    kept += entry
                at += len(entry)
            unit = bytearray(kept)
            struct.pack_into("<H", unit, 2, len(unit))
        units.append(bytes(unit))
    for word, device in changes:
        if word == "rmrr":      # a page, and a scope with one endpoint
            bus, function = divmod(requester_id(device), 256)
            units.append(struct.pack("<4H2Q2BH4B", 1, 32, 0, 0, RESERVED,
                                     RESERVED + 0xfff, 1, 8, 0, 0, bus,
                                     function >> 3, function & 7))
    return _finish(table[:BODY] + b"".join(units))


def empty(name):
    """A DMAR or IVRS that describes nothing."""
    return _finish(name.encode() + bytes(BODY - len(name)))


def initramfs(name, table):
    """A cpio archive, to go ahead of the guest's, that brings the table."""
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch, "kernel/firmware/acpi", name + ".aml")
        path.parent.mkdir(parents=True)
        path.write_bytes(table)
        names = "\n".join(["kernel", "kernel/firmware",
                           "kernel/firmware/acpi",
                           str(path.relative_to(scratch))])
        return subprocess.run(
            ["cpio", "--create", "--format=newc", "--quiet"], cwd=scratch,
            input=names.encode(), capture_output=True, check=True).stdout
