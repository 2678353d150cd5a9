# SPDX-License-Identifier: GPL-2.0-only
"""The machines in machines/: what they have, and the groups they must give.

The notation is described in machines/README.md.
"""
import pathlib
import re

from where import KERNEL, KERNELS, TOP

MACHINES = TOP / "machines"
IOMMUS = ("intel", "amd", "virtio", "smmu", "none")
LINES = ("device", "guest", "ivrs", "dmar", "not")
BLOCKS = ("groups", "stock", "reasons", "ungrouped")
DEVICE = re.compile(r"([0-9a-f]{4}:)?[0-9a-f]{2}:[0-1][0-9a-f]\.[0-7]$")


class Skip(Exception):
    """This test cannot be run here, and why."""


class MachineError(Exception):
    """A machine file that cannot be understood: names file, line and why."""


def short(device):
    """0000:00:03.0 as people write it, 00:03.0."""
    return device.removeprefix("0000:")


def full(device):
    """The other way round."""
    return device if device.count(":") == 2 else "0000:" + device


def member_list(devices):
    """Devices in few words: 00:03.0 .1 .2 for three functions."""
    words, before = [], ""
    for device in devices:
        slot, function = device.rsplit(".", 1)
        words.append("." + function if slot == before else device)
        before = slot
    return " ".join(words)


class Machine:
    """One file of machines/.

    devices     what QEMU gets after -device, in order
    guest       shell lines that the guest runs once it is up
    tables      IOMMU: changes to its firmware table, see acpi.py
    without     IOMMU: why this kernel has no groups under it
    blocks      (kind, IOMMU, command line): groups, a list of lists of devices;
                of the kind 'reasons' a dict of reasons by device
    """

    def __init__(self, path):
        path = pathlib.Path(path)
        self.name = path.name
        self.path = path
        self.devices = []
        self.guest = []
        self.tables = {}
        self.without = {}
        self.blocks = {}
        block = None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                block = self._line(line.rstrip(), block)
            except ValueError as why:
                raise MachineError(f"{self._shown()}:{number}: {why}") \
                    from None

    def _shown(self):
        """The file's name as one would type it in the repository."""
        if self.path.is_relative_to(TOP):
            return self.path.relative_to(TOP)
        return self.path

    def _line(self, line, block):
        if line.startswith("#"):
            return block
        if not line:
            return block
        if line[0].isspace():
            if block is None:
                raise ValueError("an indented line belongs under a line with "
                                 + ", ".join(BLOCKS))
            if isinstance(block, dict):
                self._reason(line.split(), block)
            else:
                self._members(line.split(), block)
            return block
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word in BLOCKS:
            return self._block(word, rest)
        if word not in LINES:
            raise ValueError(f"'{word}' is none of: "
                             + ", ".join(LINES + BLOCKS))
        if not rest:
            raise ValueError(f"nothing after '{word}'")
        if word == "device":
            self.devices.append(rest)
        elif word == "guest":
            self.guest.append(rest)
        elif word == "not":
            self._not(*rest.split(None, 2))
        else:
            self._table(word, rest.split())
        return None

    def _not(self, kernel="", iommu="", why=""):
        if kernel not in KERNELS or iommu not in IOMMUS or not why:
            raise ValueError(f"after 'not' comes: {' or '.join(KERNELS)}, "
                             "an IOMMU, and why")
        if kernel == KERNEL:
            self.without[iommu] = why

    def _table(self, word, rest):
        for device in rest[1:]:
            if not DEVICE.match(device):
                raise ValueError(f"'{device}' is no PCI address like 00:1f.0")
        if word == "ivrs" and rest[0] == "alias" and len(rest) == 3:
            self.tables.setdefault("amd", []).append((rest[1], rest[2]))
        elif word == "dmar" and rest[0] in ("without", "rmrr") and len(rest) > 1:
            self.tables.setdefault("intel", []).extend(
                (rest[0], device) for device in rest[1:])
        else:
            raise ValueError("after 'ivrs' comes: alias DEVICE ALIAS; after "
                             "'dmar': without or rmrr, and DEVICE ...")

    def _block(self, kind, rest):
        iommus, _, cmdline = rest.partition(":")
        if not iommus.split():
            raise ValueError(f"'{kind}' of which IOMMU? {' '.join(IOMMUS)}")
        members = {} if kind == "reasons" else []
        for iommu in iommus.split():
            if iommu not in IOMMUS:
                raise ValueError(f"'{iommu}' is no IOMMU: {' '.join(IOMMUS)}")
            key = (kind, iommu, cmdline.strip())
            if key in self.blocks:
                raise ValueError(f"'{kind}' of {iommu} a second time")
            self.blocks[key] = members
        return members

    @staticmethod
    def _reason(words, block):
        device, *reason = words
        for address in [device, *reason[1:]]:
            if not DEVICE.match(address):
                raise ValueError(f"'{address}' is no PCI address like 00:1f.0")
        if not reason or device in block:
            raise ValueError(f"one reason for {device}")
        block[device] = " ".join(reason)

    @staticmethod
    def _members(devices, block):
        for device in devices:
            if not DEVICE.match(device):
                raise ValueError(f"'{device}' is no PCI address like 00:1f.0")
            if device in sum(block, []):
                raise ValueError(f"{device} a second time")
        if len(set(devices)) != len(devices):
            raise ValueError("a device twice in one group")
        block.append(devices)

    def expected(self, iommu, cmdline=""):
        """The groups the file asks for, as a set of frozensets of devices."""
        key = ("groups", iommu, cmdline)
        if key not in self.blocks:
            raise MachineError(f"{self._shown()}: no groups for {iommu}"
                               + (f" with '{cmdline}'" if cmdline else ""))
        return {frozenset(group) for group in self.blocks[key]}

    def stock(self, iommu, cmdline=""):
        """The groups that the stock kernel gives, the same if not said."""
        groups = self.blocks.get(("stock", iommu, cmdline))
        if groups is None:
            return self.expected(iommu, cmdline)
        return {frozenset(group) for group in groups}

    def reasons(self, iommu, cmdline=""):
        """Some devices' reasons, by device."""
        return self.blocks.get(("reasons", iommu, cmdline), {})

    def ungrouped(self, iommu):
        """The devices that must have no group, whatever the command line."""
        groups = self.blocks.get(("ungrouped", iommu, ""), [])
        return {device for group in groups for device in group}


def load(name):
    path = MACHINES / name
    if name == "README.md" or not path.is_file():
        raise MachineError(f"no machine '{name}'; there are: "
                           + " ".join(names()))
    return Machine(path)


def names():
    return sorted(path.name for path in MACHINES.iterdir()
                  if path.is_file() and path.name != "README.md")
