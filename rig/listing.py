#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Makes of what lspci lists of a machine a topology, and reads its groups.

    rig/listing.py LSPCI [GROUPS]     prints the topology, and what there is
                                          to say of it on standard error
    rig/listing.py --real             writes machines/real/ anew, from
                                          ../shared/real

The topology is in the notation of the series' KUnit tests, see
drivers/iommu/tests/pci_group_kunit.h. A listing may be of any form that has
capabilities or configuration space in it, wrapped and quoted by mail programs.

White space is dropped before anything is looked for in what lspci says of a
Function: so it does not matter where a mail program broke the lines.
"""
import binascii
import collections
import html
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
RAW = TOP.parent / "shared/real"
REAL = TOP / "machines/real"
PCI_IDS = pathlib.Path("/usr/share/misc/pci.ids")
DO = "sudo lspci -vvvnn, or sudo lspci -xxxx"

ADDRESS = r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
# With -P and -PP the bridges on the way come first: 00:1c.0/02:00.0
HEAD = re.compile(rf"\s*({ADDRESS}(?:/(?:[0-9a-f]{{2}}:)?[01][0-9a-f]\.[0-7])*)"
                  r"\s+((?:Class )?[0-9a-f]{4}: ?\S.*|[A-Z3].*)$")
BODY = re.compile(
    r"\s*(?:(?:Subsystem|Control|Flags|DeviceName|Device tree node|Status"
    r"|Physical Slot|NUMA node|Interrupt|IOMMU group|Bus|Capabilities"
    r"|Region \d|Latency):|Memory (?:at|behind)|I/O (?:ports|behind)"
    r"|\[virtual\]|Expansion ROM|Kernel |!!!|[0-9a-f]{2,3}: [0-9a-f]{2}\b)")
BYTES = r"[0-9a-f]{2}(?: [0-9a-f]{2})"
HEX = re.compile(rf"\s*([0-9a-f]{{2,3}}): ({BYTES}{{0,15}}) ?$")
MORE_HEX = re.compile(rf"\s*({BYTES}{{0,14}}) ?$")
# What people have below a listing, or above it, in the same text: a log, lsusb, or
# a prompt with the next command, which "WAKE# ARIFwd+" is not
OTHER = re.compile(r"\[ *\d+\.\d+\]|Bus \d{3} Device \d{3}:"
                   r"|(?:\[?[\w-]+@.*|\S*[~/\d])?[$#] [a-z]")

CAPS = (("RootComplexIntegratedEndpoint", "rc-endpoint"),
        ("RootComplexEventCollector", "rc-ec"),
        ("LegacyEndpoint", "legacy-endpoint"),
        ("Endpoint", "endpoint"),
        ("RootPort", "root-port"),
        ("UpstreamPort", "upstream"),
        ("DownstreamPort", "downstream"),
        ("PCI-ExpresstoPCI/PCI-XBridge", "pcie-to-pci"),
        ("PCI/PCI-XtoPCI-ExpressBridge", "pci-to-pcie"),
        ("PCI/PCI-XBridge", "pcie-to-pci"))
EXPRESS = re.compile(r"Capabilities:\[[0-9a-f]+\]Express(?:\(v\d+\))?("
                     + "|".join(re.escape(cap) for cap, _ in CAPS) + ")")
EXP_TYPES = {0: "endpoint", 1: "legacy-endpoint", 4: "root-port",
             5: "upstream", 6: "downstream", 7: "pcie-to-pci",
             8: "pci-to-pcie", 9: "rc-endpoint", 10: "rc-ec"}
TYPES = (*EXP_TYPES.values(), "pci", "pci-bridge")
BRIDGES = ("root-port", "upstream", "downstream", "pcie-to-pci",
           "pci-to-pcie", "pci-bridge")
PORTS = ("root-port", "upstream", "downstream")

# The bits of the ACS Capability and Control Registers
ACS_BITS = (("sv", 1), ("tb", 2), ("rr", 4), ("cr", 8), ("uf", 0x10),
            ("ec", 0x20), ("dt", 0x40))
ACS_WORDS = (("SrcValid", 1), ("TransBlk", 2), ("ReqRedir", 4),
             ("CmpltRedir", 8), ("UpstreamFwd", 0x10), ("EgressCtrl", 0x20),
             ("DirectTrans", 0x40))
ACS_KERNEL = 0x1d       # what pci_std_enable_acs() enables

INTEL = 0x8086
# pci_quirk_intel_pch_acs_ids[]: isolate once the kernel has told the chipset
PCH = {*range(0x3b42, 0x3b52), *range(0x1c10, 0x1c20), *range(0x1e10, 0x1e20),
       *range(0x8c10, 0x8c20), *range(0x9c10, 0x9c1c), *range(0x9c90, 0x9c9c),
       *range(0x1d10, 0x1d20, 2), *range(0x8d10, 0x8d1f),
       *range(0x8c90, 0x8ca0, 2)}
# pci_quirk_intel_spt_pch_acs_match(): 32 bit registers where 16 bit are due
SPT = {*range(0xa110, 0xa120), *range(0xa167, 0xa16b), *range(0xa290, 0xa2a0),
       *range(0xa2e7, 0xa2ef), *range(0x9d10, 0x9d1c)}
# IDs besides which drivers/pci/quirks.c looks for on the way to a group
QUIRKS = {
    0x1002: "4383-4385 4399 439c-439d",
    0x1022: "7809 780f",
    0x1924: "0903 0923 0a03",
    INTEL: "105e-1060 10a7 10a9 10c6 10c9 10d6 10d9 10db 10dd 10e1 10e6-10e8 "
           "10f1 10f7-10fc 1507 1509-150a 150d-1511 1514 1516 1518 151c "
           "1521-1524 1526-1527 1529-152a 154d 154f 1551 1558 15b7-15b8 2260 "
           "2264 244e 2954-2956 2958-295a",
    0x14e4: "16d7 1750-1752 1760-1763 9000 9084 d714",
    0x1180: "e476 e832",
    0x1b4b: "9120 9123 9125 9128 9130 9170 9172 917a 9182 9183 91a0 9215 9220 "
            "9230 9235",
    0x197b: "2361-2363 2368",
    0x9005: "0285", 0x10b5: "87b0-87b1",
    0x1080: "0001", 0x10e3: "8113", 0x1283: "8892-8893",
}
QUIRKS = {vendor: {number for word in words.split()
                   for number in range(int(word[:4], 16),
                                       int(word[-4:], 16) + 1)}
          for vendor, words in QUIRKS.items()}
# IBM's host bridges, below which POWER's firmware says what is a group
POWER = re.compile(r"POWER\d+ (?:PCIe )?Host Bridge|IBM Device 0(?:4c1|3dc|3b9)"
                   r"|1014:0(?:4c1|3dc|3b9)")
VMD = {0x201d, 0x28c0, 0x467f, 0x4c3d, 0xa77f, 0x7d0b, 0xad0b, 0x9a0b, 0xb60b,
       0xb06f}
VMD_SEGMENTS = 0x10000


class ListingError(Exception):
    """A listing that cannot be used: why, and what to do."""


Address = collections.namedtuple("Address", "segment bus devfn")


def parse_address(text):
    """An Address of 0000:00:1f.2 or 00:1f.2."""
    *segment, bus, rest = text.split(":")
    device, function = rest.split(".")
    return Address(int(segment[0], 16) if segment else 0, int(bus, 16),
                   int(device, 16) << 3 | int(function))


def show(address, first=0):
    """As the notation has it: the segment only where it is not the first's."""
    bus, devfn = address.bus, address.devfn
    text = f"{bus:02x}:{devfn >> 3:02x}.{devfn & 7}"
    segment = address.segment
    return text if segment == first else f"{segment:x}:{text}"


class Names:
    """pci.ids, and the other way round: IDs by name."""

    def __init__(self, path=PCI_IDS):
        self.ids = {}
        self.vendors = collections.defaultdict(list)
        self.devices = collections.defaultdict(list)
        vendor = None
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            text = ""
        for line in text.splitlines():
            if line.startswith("C "):
                break
            found = re.match(r"(\t?)([0-9a-f]{4})  (.*)", line)
            if not found:
                continue
            number, name = int(found[2], 16), squeeze(found[3]).lower()
            if found[1]:
                self.ids[vendor, number] = found[3]
                self.devices[vendor, name].append(number)
            else:
                vendor = number
                self.vendors[name].append(vendor)

    def of(self, vendor, device):
        """The name of a device, without what is in brackets, or None."""
        name = self.ids.get((vendor, device))
        return name and re.sub(r" [\[(].*?[\])]", "", name)

    def find(self, name):
        """The IDs that may have this name: a vendor or None, devices."""
        name = squeeze(name).lower()
        found = re.match(r"(?:unknown)?device([0-9a-f]{4}):([0-9a-f]{4})",
                         name)
        if found:
            return int(found[1], 16), [int(found[2], 16)]
        for end in range(len(name), 0, -1):
            vendors = self.vendors.get(name[:end])
            if not vendors:
                continue
            rest = name[end:]
            unknown = re.match(r"device([0-9a-f]{4})$", rest)
            for vendor in vendors:
                devices = self.devices.get((vendor, rest))
                if unknown:
                    devices = [int(unknown[1], 16)]
                if devices:
                    return vendor, devices
            return (vendors[0] if len(vendors) == 1 else None), []
        return None, []


_names = []


def names():
    if not _names:
        _names.append(Names())
    return _names[0]


def squeeze(text):
    return re.sub(r"\s+", "", text)


def matters(vendor, device):
    """What the kernel's quirks make of these IDs, as far as groups go."""
    if vendor == INTEL and device in PCH:
        return "PCH"
    if vendor == INTEL and device in SPT:
        return "SPT"
    return "another" if device in QUIRKS.get(vendor, ()) else None


class Function:
    """What a listing says of a Function.

    address     its Address
    kind, name  what lspci calls it: class and name
    driver      its driver, if the listing says so
    vendor, device, subsystem   IDs, None if not known
    type        as in the notation
    secondary, subordinate      of a bridge
    acs         None or (capability, control), control None if not known
    mf          the Multi-Function bit, None if not known
    mem         has a memory BAR, None if not known
    group       the number of its group, None if not said
    vfs         None or (number, offset, stride)
    """

    def __init__(self, address, head, body, config):
        self.address = address
        self.head = " ".join(head.split())
        self.body = squeeze(body)
        self.config = config
        self.notes = []
        self.gone = ("(revff)" in squeeze(self.head)
                     or "!!!Unknownheadertype7f" in self.body
                     # The IDs alone are ff in a VF
                     or config and not config.strip(b"\xff"))
        if self.gone:
            self.config = b""
        self.has_text = bool(re.search(
            "Control:I/O|Flags:|Capabilities:|Status:Cap", self.body))
        self._names()
        self._registers()

    # What lspci says in words

    def _names(self):
        head = re.sub(r" \((?:rev|prog-if) .*", "", self.head)
        self.kind, _, self.name = (part.strip()
                                   for part in head.partition(":"))
        name = re.sub(r"\((?:rev[0-9a-f]{2}\)|prog-if).*", "",
                      squeeze(self.head)).partition(":")[2]
        self.vendor = self.device = self.subsystem = None
        self.candidates = []
        code = re.search(r"(?:^|^Class|\[)([0-9a-f]{4})\]?$",
                         squeeze(self.kind))
        self.code = int(code[1], 16) if code else None
        self.kind = re.sub(r" ?\[[0-9a-f]{4}\]$", "", self.kind)
        ids = re.search(r"\[([0-9a-f]{4}):([0-9a-f]{4})\]", name) or \
            re.match(r"([0-9a-f]{4}):([0-9a-f]{4})$", name)
        if ids:
            self.vendor, self.device = int(ids[1], 16), int(ids[2], 16)
        elif self.config[:2] not in (b"", b"\xff\xff"):
            self.vendor, self.device = self._word(0), self._word(2)
        else:
            self.vendor, self.candidates = names().find(name)
            if len({matters(self.vendor, device)
                    for device in self.candidates}) == 1:
                self.device = self.candidates[0]
        self.name = re.sub(r" ?\[[0-9a-f]{4}:[0-9a-f]{4}\]", "", self.name)
        sub = re.search(r"Subsystem:(?:.*?\[)?([0-9a-f]{4}):([0-9a-f]{4})",
                        self.body[:self._first_cap()])
        if sub:
            self.subsystem = int(sub[1], 16), int(sub[2], 16)
        driver = re.search(r"Kerneldriverinuse:([\w-]+?)(?=Kernelmodules|$)",
                           self.body)
        self.driver = driver[1] if driver else None

    def _first_cap(self):
        """Where the Capabilities begin: in them are VFs' BARs, and more."""
        start = self.body.find("Capabilities:")
        return len(self.body) if start < 0 else start

    def _sign_bits(self, label, offset=0):
        """A register that is listed as names with + and -."""
        found = re.compile(label + ":((?:[A-Za-z]+[+-]){3,})").search(
            self.body, offset)
        if not found:
            return None
        return sum(bit for word, bit in ACS_WORDS if word + "+" in found[1])

    # Configuration space

    def _word(self, where):
        return int.from_bytes(self.config[where:where + 2], "little")

    def _long(self, where):
        return int.from_bytes(self.config[where:where + 4], "little")

    def _cap(self, number):
        """Where the Capability is in the first 256 bytes, or None."""
        if len(self.config) < 256 or not self._word(6) & 0x10:
            return None
        where = self.config[0x34] & ~3
        for _ in range(48):
            if where < 0x40:
                break
            if self.config[where] == number:
                return where
            where = self.config[where + 1] & ~3
        return None

    def _ext_cap(self, number):
        """The same for Extended Capabilities."""
        where = 0x100
        for _ in range(960):
            if where < 0x100 or where + 4 > len(self.config):
                break
            header = self._long(where)
            if header in (0, 0xffffffff):
                break
            if header & 0xffff == number:
                return where
            where = header >> 20 & ~3
        return None

    @property
    def extended(self):
        """Is what the listing says of Extended Capabilities all there is?"""
        return len(self.config) > 256 or self.has_text

    def _registers(self):
        config, body = self.config, self.body
        header = config[0xe] if len(config) >= 64 else None
        self.mf = None if header is None else bool(header & 0x80)
        self.is_bridge = self.secondary = self.subordinate = None
        bus = re.search(r"Bus:primary=[0-9a-f]+,secondary=([0-9a-f]{2}),"
                        r"subordinate=([0-9a-f]{2})", body)
        if header is not None:
            self.is_bridge = header & 0x7f in (1, 2)
            if self.is_bridge:
                self.secondary, self.subordinate = config[0x19], config[0x1a]
        elif bus:
            self.is_bridge = True
            self.secondary, self.subordinate = (int(number, 16)
                                                for number in bus.groups())
        elif self.has_text and not self.gone:
            self.is_bridge = False
        elif self.code in (0x0604, 0x0607, 0x0609) or \
                self.kind.startswith(("PCI bridge", "CardBus bridge")):
            self.is_bridge = True
        self._set_type()
        self._set_bars(header)
        self._set_acs()
        self._set_iov()
        group = re.search(r"IOMMUgroup:?(\d+)", body)
        self.group = int(group[1]) if group else None

    def _set_type(self):
        self.express = None
        where = self._cap(0x10)
        if where:
            self.express = EXP_TYPES.get(self._word(where + 2) >> 4 & 15)
        else:
            found = EXPRESS.search(self.body)
            if found:
                self.express = dict(CAPS)[found[1]]

    def _set_bars(self, header):
        """Registers that are not set up read as 0; then lspci's word counts."""
        text = self.body[:self._first_cap()]
        self.mem = bool(re.search(r"Region\d:Memoryat|(?<!ROM)Memoryat", text))
        if header is not None:
            self.mem |= any(self._long(where) & ~0xf
                            and not self._long(where) & 1
                            for where in self._bars(header))
        elif not self.has_text:
            self.mem = None
        if self.gone:
            self.mem = None

    def _bars(self, header):
        """Where the BARs are, without upper halves."""
        where, end = 0x10, {0: 0x28, 1: 0x18}.get(header & 0x7f, 0x10)
        while where < end:
            yield where
            where += 8 if self._long(where) & 7 == 4 else 4

    @property
    def is_host_bridge(self):
        return not self.is_bridge and (self.kind == "Host bridge"
                                       or self.code == 0x0600)

    @property
    def is_spt(self):
        return (self.vendor == INTEL and self.device in SPT
                and self.express == "root-port")

    def _set_acs(self):
        self.acs = None
        where = self._ext_cap(0xd) if len(self.config) > 256 else None
        if where:
            if self.is_spt:
                self.acs = (self._word(where + 4), self._word(where + 8))
            else:
                self.acs = (self._word(where + 4), self._word(where + 6))
            return
        cap = self._sign_bits("ACSCap")
        if cap is not None:
            ctrl = self._sign_bits("ACSCtl")
            self.acs = (cap, None if self.is_spt else ctrl)
        elif "AccessControlServices" in self.body:
            # -v: it is there, what is in it is not said
            self.acs = (ACS_KERNEL, None)
            self.notes.append("acs")

    def _set_iov(self):
        exp = self._cap(0x10)
        self.ari = False
        self.vfs = None
        if self.is_bridge:
            if exp and self.express in PORTS:
                self.ari = bool(self._long(exp + 0x24) & 0x20)
            else:
                found = re.search(r"DevCap2:.*?ARIFwd([+-])", self.body)
                self.ari = bool(found and found[1] == "+")
        elif len(self.config) > 256:
            self.ari = self._ext_cap(0xe) is not None
        else:
            self.ari = bool(re.search("AlternativeRouting-?IDInterpretation",
                                      self.body))
        where = self._ext_cap(0x10) if len(self.config) > 256 else None
        if where:
            self.vfs = (self._word(where + 0x10), self._word(where + 0x14),
                        self._word(where + 0x16))
        else:
            found = re.search(r"NumberofVFs:(\d+).*?VFoffset:(\d+),"
                              r"stride:(\d+)", self.body)
            if found:
                self.vfs = tuple(int(number) for number in found.groups())
        if self.vfs and not self.vfs[0]:
            self.vfs = None

    def adopt(self, other):
        """Of the same Function in a second listing: what this one lacks."""
        return Function(self.address,
                        max(self.head, other.head, key=lambda head:
                            ("(rev ff)" not in head, "[" in head, len(head))),
                        max(self.body, other.body, key=lambda body: (
                            "<accessdenied>" not in body,
                            "Control:I/O" in body, len(body))),
                        max(self.config, other.config, key=len))


# From text to Functions

def clean(text):
    """Lines without what mail programs do to them, terminals and web pages."""
    if "ary=3D" in text:
        # A mail as it was sent: lspci has no capitals in "secondary=3d"
        text = binascii.a2b_qp(text).decode("utf-8", "replace")
    text = re.sub(r"[\r\f\ufeff]|\x1b\[[0-9;]*[mK]|</?(?:pre|code)>", "",
                  html.unescape(text)).replace("\u00a0", " ")
    lines = text.expandtabs().split("\n")
    while sum(bool(re.match(r" ?>", line)) for line in lines) * 2 > \
            sum(bool(line.strip()) for line in lines):
        lines = [re.sub(r"^ ?> ?", "", line) for line in lines]
    return lines


def blocks(lines):
    """(address, head, body, configuration space) of each Function listed."""
    address = None
    head, body, config = [], [], {}
    in_head = other = False
    where = None

    def done():
        size = 0
        while size in config:
            size += 1
        return (address, " ".join(head), "\n".join(body),
                bytes(config[i] for i in range(size)))

    for line in lines:
        found = HEAD.match(line)
        if found and plausible(found[2]):
            if address:
                yield done()
            address, head = found[1], [found[2]]
            body, config = [], {}
            in_head, other, where = True, False, None
            continue
        if not address or other:
            continue
        if OTHER.match(line):
            other = True
            continue
        if in_head:
            if not line.strip() or BODY.match(line):
                in_head = False
            else:
                head.append(line.strip())
                continue
        hexes = HEX.match(line)
        if hexes:
            where = int(hexes[1], 16)
        elif where is not None:
            hexes = MORE_HEX.match(line)
        if hexes:
            for byte in bytes.fromhex(hexes[hexes.lastindex]):
                config[where] = byte
                where += 1
            if where % 16 == 0:
                where = None
        else:
            where = None
            body.append(line)
    if address:
        yield done()


def plausible(rest):
    """Is this the class of a device, and not words after an address?"""
    if re.match(r"(?:Class )?[0-9a-f]{4}:", rest):
        return True
    kind = rest.partition(":")[0]
    return len(kind) < 60 and "=" not in kind and not kind.endswith(".")


def listings(text):
    """Each listing in the text: a dict of Functions by Address, in order."""
    result = [{}]
    paths = {}
    for path, head, body, config in blocks(clean(text)):
        if ":" not in head:
            continue
        *way, last = path.split("/")
        if last.count(":"):
            segment = path.split(":")[0] + ":" if path.count(":") > \
                path.count("/") + 1 else ""
            address = parse_address(segment + last if way else last)
        else:
            bridge = paths.get("/".join(way))
            if not bridge or bridge.secondary is None:
                continue
            address = bridge.address._replace(
                bus=bridge.secondary,
                devfn=parse_address("00:" + last).devfn)
        if address in result[-1]:
            result.append({})
        function = Function(address, head, body, config)
        result[-1][address] = function
        paths[path] = function
    return [found for found in result if found]


# From Functions to a topology

class Listing:
    """A machine as a listing shows it.

    functions   a Function for each that is listed, by Address
    groups      the number of the group that the machine reports, by Address
    notes       what a person should know: how sure the topology is
    added       Functions 0 that the listing lacks and the kernel needs
    virtual     the VFs among the functions, each with its PF
    power       POWER's: its kernel does not group by what is here
    """

    def __init__(self, text, groups=None, acs="kernel"):
        self.notes = []
        self.acs = acs
        self.functions = self._one_of(listings(text))
        self._refuse()
        self.power = any(POWER.search(function.head)
                         or (function.vendor, function.device) in
                         ((0x1014, 0x4c1), (0x1014, 0x3dc), (0x1014, 0x3b9))
                         for function in self.functions.values())
        self.groups = {address: function.group
                       for address, function in self.functions.items()
                       if function.group is not None}
        if groups is not None:
            self.groups = parse_groups(groups)
        elif not self.groups:
            self.groups = parse_groups("\n".join(
                line for line in clean(text) if re.search(
                    r"iommu group|to group \d|iommu_groups/", line)))
        self.groups = {address: number
                       for address, number in self.groups.items()
                       if address in self.functions}
        self.virtual = {}
        self.added = {}
        self._find_vfs()
        self._set_types()
        self._set_buses()
        self._add_functions_0()
        self._say()

    def note(self, text, addresses=()):
        addresses = [show(address) for address in addresses]
        if len(addresses) > 6:
            addresses[6:] = [f"and {len(addresses) - 6} more"]
        self.notes.append(text + (": " if addresses else "")
                          + " ".join(addresses))

    def _one_of(self, found):
        """Listings of one machine complete each other; of several the fullest."""
        if not found:
            raise ListingError(f"no listing of lspci in this text; do: {DO}")
        views = found[:1]
        for other in found[1:]:
            for number, view in enumerate(views):
                if view.keys() == other.keys():
                    views[number] = {
                        address: function.adopt(other[address])
                        for address, function in view.items()}
                    break
            else:
                views.append(other)
        best = max(views, key=lambda view: (
            sum(function.extended for function in view.values()) > 0,
            len(view)))
        if len(views) > 1:
            sizes = " and ".join(str(len(view)) for view in views)
            self.note(f"the text holds listings of {sizes} functions, which "
                      f"are not the same; the one of {len(best)} is taken")
        return best

    def _refuse(self):
        functions = self.functions.values()
        denied = [function.address for function in functions
                  if "Capabilities:<accessdenied>" in function.body
                  and len(function.config) < 256]
        denied += [function.address for function in functions
                   if not function.has_text and 0 < len(function.config) < 256
                   and function._word(6) & 0x10]
        if denied:
            raise ListingError(
                "the capabilities are not in the listing, lspci was not run "
                f"as root, or with -x (at {show(denied[0])}); do: {DO}")
        if not any(function.has_text or function.config
                   for function in functions):
            raise ListingError("these are names only, what decides about "
                               f"groups is not in the listing; do: {DO}")

    def _find_vfs(self):
        """VFs are made by their PF, and cannot be told by themselves."""
        for pf in list(self.functions.values()):
            if not pf.vfs:
                continue
            total, offset, stride = pf.vfs
            first = pf.address.bus << 8 | pf.address.devfn
            count = 0
            for number in range(total):
                rid = first + offset + stride * number
                address = Address(pf.address.segment, rid >> 8, rid & 0xff)
                if address not in self.functions or \
                        self.functions[address].vfs:
                    break
                self.virtual[address] = pf.address
                count += 1
            if count < total:
                self.note(f"{total - count} of {total} VFs are not listed",
                          [pf.address])
            pf.vfs = (count, offset, stride) if count else None
        orphans = [function.address for function in self.functions.values()
                   if re.search("Virtual Function", function.name)
                   and function.address not in self.virtual]
        if orphans:
            self.note("VFs whose PF does not say that it has them are taken "
                      "for functions of their own", orphans)

    def _real(self):
        return [function for address, function in sorted(
                self.functions.items()) if address not in self.virtual]

    def _set_types(self):
        """Types as the notation has them; of those that are silent guessed."""
        self.above = {}
        for function in self._real():
            if (function.secondary or 0) > function.address.bus:
                self.above.setdefault((function.address.segment,
                                       function.secondary), function)
        for function in self._real():
            kind = function.express
            if function.gone and not kind:
                kind = self._guess(function)
            if function.is_bridge and kind not in BRIDGES:
                kind = "pci-bridge"
            elif not function.is_bridge and kind in BRIDGES:
                # Xeon's DMI: a Root Port without a bus below it
                above = self._bridge_above(function)
                kind = "endpoint" if above else "rc-endpoint"
            function.type = kind or "pci"

    def _bridge_above(self, function):
        return self.above.get((function.address.segment, function.address.bus))

    def _guess(self, function):
        """What a Function is that does not answer, by the port above it."""
        above = self._bridge_above(function)
        over = above.express if above else "root-port"
        if function.is_bridge:
            return {"upstream": "downstream", "downstream": "upstream",
                    "root-port": "upstream"}.get(over) if above \
                else "root-port"
        if not above:
            return "rc-endpoint"
        return "endpoint" if over in PORTS else "pci"

    def _set_buses(self):
        """Bridges that firmware gave no bus get one: the kernel gives one."""
        used = {(function.address.segment, bus) for function in self._real()
                for bus in range(function.secondary or 0,
                                 (function.subordinate or 0) + 1)}
        used |= {address[:2] for address in self.functions}
        given = []
        for function in self._real():
            if function.type not in BRIDGES:
                continue
            segment, bus, _ = function.address
            above = self._bridge_above(function)
            if self.above.get((segment, function.secondary)) is not function:
                number = self._free_bus(segment, bus, above, used)
                function.secondary = function.subordinate = number
                used.add((segment, number))
                given.append(function.address)
            function.subordinate = max(function.subordinate,
                                       function.secondary)
        if given:
            self.note("bridges without a bus were given one", given)

    @staticmethod
    def _free_bus(segment, bus, above, used):
        """A bus below the bridge above, if there is one that nobody has."""
        free = [number for number in range(bus + 1, 0x100)
                if (segment, number) not in used]
        inside = [number for number in free
                  if not above or number <= (above.subordinate or 0)]
        if not free:
            raise ListingError("the bridges of this listing have no buses "
                               f"left in segment {segment:x}")
        return (inside or free)[0]

    def _add_functions_0(self):
        """The kernel looks for others only where there is a Function 0."""
        slots = {}
        for function in self._real():
            segment, bus, devfn = function.address
            above = self._bridge_above(function)
            if above and above.ari and function.ari:
                devfn &= 7      # its slot is all of the bus
            slots.setdefault((segment, bus, devfn >> 3), function)
        for segment, bus, slot in slots:
            address = Address(segment, bus, slot << 3)
            if address not in self.functions:
                self.added[address] = slots[segment, bus, slot]
        if self.added:
            self.note("Function 0 is not in the listing; one that isolates "
                      "stands for it", sorted(self.added))

    def _say(self):
        functions = self._real()
        if any("acs" in function.notes for function in functions):
            self.note("lspci -v says where there is an ACS Capability, but "
                      "not what it has: it is taken to have all; surer is "
                      + DO)
        if not any(function.extended for function in functions):
            self.note("lspci -xxx has no Extended Capabilities, so no ACS: "
                      f"groups may come out too big; surer is {DO}")
        gone = [function.address for function in functions if function.gone]
        if gone:
            self.note("do not answer (rev ff), and are taken to have no ACS",
                      gone)
        unsure = [function.address for function in functions
                  if function.device is None
                  and any(matters(function.vendor, device)
                          for device in function.candidates)]
        if unsure:
            self.note("their names are those of several IDs, of which a quirk "
                      "of the kernel knows some; surer is lspci -nn", unsure)
        unknown = [function.address for function in functions
                   if function.device is None and not function.candidates]
        if unknown:
            self.note("their names are not in pci.ids, so that no quirk of "
                      "the kernel will know them; surer is lspci -nn", unknown)
        if self.power:
            self.note("POWER's kernel makes groups of what firmware calls a "
                      "partitionable endpoint, not of what is here")
        for segment, bus in self._roots():
            if bus and segment < VMD_SEGMENTS and self._is_inside(segment, bus):
                self.note(f"the bridge to bus {bus:02x} is not in the listing")
        vmds = [segment for segment in {address.segment
                                        for address in self.functions}
                if segment >= VMD_SEGMENTS and self._vmd(segment) is None]
        if vmds:
            self.note("the VMD device that does the DMA of segment "
                      + " ".join(f"{segment:x}" for segment in sorted(vmds))
                      + " is not in the listing")

    def refusal(self):
        """Why nobody should replay this, or None."""
        if self.power:
            return ("this is a POWER machine: its kernel groups by what the "
                    "firmware says, not by what lspci shows; look in "
                    "/sys/kernel/iommu_groups")
        return None

    # The text

    def _roots(self):
        """(segment, bus) of the buses to which no bridge leads."""
        return sorted({address[:2] for address in
                       [function.address for function in self._real()]
                       + list(self.added)
                       if address[:2] not in self.above})

    def _is_inside(self, segment, bus):
        return any(function.address.segment == segment and function.secondary
                   and function.secondary <= bus <= function.subordinate
                   for function in self._real())

    def _vmd(self, segment):
        """The Function that does the DMA of a segment of VMD's."""
        devices = [function.address for function in self._real()
                   if function.address.segment < VMD_SEGMENTS
                   and (function.driver == "vmd"
                        or function.vendor == INTEL and function.device in VMD
                        or "Volume Management Device" in function.name)]
        number = segment - VMD_SEGMENTS
        return devices[number] if number < len(devices) else None

    def topology(self):
        """The machine in the notation of the KUnit tests."""
        lines = []
        below = collections.defaultdict(list)
        for function in self._real():
            below[function.address[:2]].append(function.address)
        for address in self.added:
            below[address[:2]].append(address)
        first = min(address.segment for address in self.functions)
        shown = set()

        def bus_lines(segment, bus, depth):
            if (segment, bus) in shown:
                return
            shown.add((segment, bus))
            for address in sorted(below[segment, bus]):
                lines.append("  " * depth + self.line(address))
                function = self.functions.get(address)
                if function and function.type in BRIDGES:
                    bus_lines(segment, function.secondary, depth + 1)

        for segment, bus in self._roots():
            head = f"segment {segment:x}" + (f" bus {bus:02x}" if bus else "")
            if segment >= VMD_SEGMENTS and self._vmd(segment):
                head += f" behind {show(self._vmd(segment), first)}"
            lines.append(head)
            bus_lines(segment, bus, 0)
        return "\n".join(lines) + "\n"

    def line(self, address):
        """The line of one Function."""
        if address not in self.functions:
            kind = ("endpoint" if address[:2] in self.above else "rc-endpoint")
            return f"{show(address, address.segment)} {kind} acs no-mem"
        function = self.functions[address]
        words = [show(address, address.segment), function.type]
        if function.type in BRIDGES:
            end = (f"-{function.subordinate:02x}"
                   if function.subordinate != function.secondary else "")
            words.append(f"[{function.secondary:02x}{end}]")
        if function.vendor is not None:
            words.append(f"{function.vendor:04x}:{function.device or 0:04x}")
        if function.subsystem and function.vendor == 0x9005:
            words.append("subsystem={:04x}:{:04x}".format(*function.subsystem))
        if function.is_host_bridge:
            words.append("host-bridge")
        words += self._acs_words(function)
        siblings = any(Address(*address[:2], address.devfn & ~7 | number)
                       in self.functions for number in range(1, 8))
        if function.mf and not address.devfn & 7 and not siblings:
            words.append("mf")
        if function.mf is False and address.devfn & 7:
            words.append("no-mf")
        if function.ari:
            words.append("ari")
        if function.vfs:
            words.append("vfs={}@{:x}+{:x}".format(*function.vfs))
        if self._untranslated(function):
            words.append("untranslated")
        usual = function.type not in BRIDGES + ("rc-ec",)
        if function.mem is not None and function.mem != usual:
            words.append("mem" if function.mem else "no-mem")
        return " ".join(words)

    def _untranslated(self, function):
        """An AMD IOMMU, and what has no group where the machine has groups."""
        if function.code == 0x0806 or function.kind == "IOMMU":
            return True
        return (bool(self.groups) and not self.power
                and function.address not in self.groups)

    def _acs_words(self, function):
        if function.acs is None:
            if self.acs == "kernel" and function.type == "root-port" and \
                    function.vendor == INTEL and function.device in PCH:
                return ["pch-acs"]
            return []
        cap, ctrl = function.acs
        cap &= 0x7f
        if ctrl is None:
            # Not said. Where there are groups the kernel has enabled it.
            ctrl = cap & ACS_KERNEL if self.groups else 0
        if self.acs == "kernel":
            ctrl |= cap & ACS_KERNEL
        ctrl &= cap
        if cap == ACS_KERNEL and ctrl == cap:
            return ["acs"]
        if cap == ACS_KERNEL and not ctrl:
            return ["acs=off"]
        return ["acs=" + "".join(name + ("+" if ctrl & bit else "-")
                                 for name, bit in ACS_BITS if cap & bit)]

    def members(self):
        """The reported groups: lists of Addresses by number."""
        result = collections.defaultdict(list)
        for address, number in sorted(self.groups.items()):
            result[number].append(address)
        return dict(sorted(result.items()))


GROUP = re.compile(
    r"iommu_groups/(\d+)(?:/|:|$)|(?:^|/)(\d+)/devices(?:/|:|$)"
    r"|(?i:iommu[ _]?group|to group|\bgroup)(?:/id)?[: #]*(\d+)"
    rf"|^\s*(\d+):?\s+(?={ADDRESS}\b)|^\s*{ADDRESS}:?\s+(\d+)$"
    # Alone in its line, or in what tree draws
    r"|^[^\w.:/]*(\d+)$")

ADDING = re.compile(r"(?:Add|Remov)ing (?:device|(?:to|from) iommu group) ")


def parse_groups(text):
    """Numbers by Address, of what people have that says groups.

    The links in /sys/kernel/iommu_groups, as find, ls -R or tree shows them, or
    those of devices to there; dmesg's "Adding to iommu group"; what loops print,
    with the group ahead of a device, in its line or in one above it; lspci's own
    lines; lsiommu; "13 00:1c.0", and the other way round.
    """
    groups = {}
    number = device = None
    lines = clean(text)
    if any(map(ADDING.search, lines)):
        # A kernel's log, which names devices for much else
        lines = list(filter(ADDING.search, lines))
    for line in lines:
        # What a group reaches, or who is in the way, is not in the group
        if "reache" in line:
            continue
        line = line.partition("cannot be owned whole")[0].rstrip()
        found = GROUP.search(line)
        if found:
            number = int(next(filter(None, found.groups())))
        # Of a link the address is in its own name, behind bridges on the way
        addresses = next(filter(None, (
            re.findall(rf"(?<![\w:.]){ADDRESS}\b", word)
            for word in line.split())), None)
        if not addresses:
            # lspci's own: the group comes below the device
            if found and device and re.match(r"\s*(IOMMU group|Flags)", line):
                groups[device] = number
                number = None
            continue
        device = parse_address(addresses[-1])
        if "Removing" in line:
            groups.pop(device, None)
        elif number is not None:
            groups[device] = number
    return groups


# machines/real/

HEADER = "# SPDX-License-Identifier: GPL-2.0-only\n"


def compact(listing, about=""):
    """A file of machines/real/: the topology, and the groups reported."""
    what = dict(line.split(": ", 1) for line in about.splitlines()
                if ": " in line)
    options = what.get("lspci options", "")
    when = re.sub("^in public, ", "", what.get("found", ""))
    text = HEADER
    text += "# From a listing by lspci" + (
        f" {options} that was found in public, {when};\n" if about else ";\n")
    text += f"# {len(listing.functions)} functions.\n"
    for note in listing.notes:
        # Which names are known depends on the pci.ids of who asks
        if "lspci -nn" not in note:
            text += f"# Note: {note}\n"
    text += "topology\n"
    text += "".join(f"    {line}\n"
                    for line in listing.topology().splitlines())
    if listing.added:
        text += "added\n" + "".join(f"    {short(address)}\n"
                                    for address in sorted(listing.added))
    if listing.groups:
        text += "groups\n"
    for number, members in listing.members().items():
        text += f"    {number}: " + " ".join(map(short, members)) + "\n"
    return text


def is_topology(text):
    """Is this a topology, or a file of machines/real/, and no listing?"""
    return any(re.match(rf"\s*(segment [0-9a-f]+\b|topology$|{ADDRESS} "
                        rf"({'|'.join(TYPES)})\b)", line)
               for line in text.splitlines())


def parse_topology(text):
    """All Functions in a topology, VFs last: by Address their type and their IDs.

    The type of a host bridge is "host-bridge". The IDs are a pair, or None.
    """
    functions, virtual = {}, {}
    segment = 1
    for line in text.splitlines():
        words = line.split()
        if not words or words[0] == "option":
            continue
        if words[0] == "segment":
            segment = int(words[1], 16)
            continue
        address = parse_address(words[0])._replace(segment=segment)
        ids = re.search(r" ([0-9a-f]{4}):([0-9a-f]{4})\b", line)
        kind = words[1] if len(words) > 1 else None
        if "host-bridge" in words:
            kind = "host-bridge"
        functions[address] = kind, ids and (int(ids[1], 16), int(ids[2], 16))
        vfs = re.search(r" vfs=(\d+)@([0-9a-f]+)\+([0-9a-f]+)", line)
        for number in range(int(vfs[1]) if vfs else 0):
            rid = ((address.bus << 8 | address.devfn) + int(vfs[2], 16)
                   + number * int(vfs[3], 16))
            virtual[Address(segment, rid >> 8, rid & 0xff)] = kind, None
    return functions | virtual


class Facts:
    """What a file of machines/real/ says, or a topology alone.

    topology    the text
    added       Functions of it that only stand for some
    groups      the number of the group that the machine had, by Address
    notes       how sure the topology is
    reach       what it reaches: lines
    """

    def __init__(self, text):
        lines = text.splitlines()
        self.notes = [line.removeprefix("# Note: ") for line in lines
                      if line.startswith("# Note: ")]
        lines = [line for line in lines if not line.startswith("#")]
        blocks = {"topology": [], "added": [], "groups": [], "reach": []}
        block = blocks["topology"]
        for line in lines:
            if line in blocks:
                block = blocks[line]
            else:
                block.append(line)
        indent = "    " * ("topology" in lines)
        self.topology = "\n".join(line.removeprefix(indent)
                                  for line in blocks["topology"]) + "\n"
        self.added = [parse_address(line.strip()) for line in blocks["added"]]
        self.groups = {}
        for line in blocks["groups"]:
            number, members = line.split(":", 1)
            for member in members.split():
                self.groups[parse_address(member)] = int(number)
        self.reach = [line.strip() for line in blocks["reach"]]


def short(address):
    """As other files in machines/ have it: the segment if it is not 0."""
    text = show(address._replace(segment=0))
    return f"{address.segment:04x}:{text}" if address.segment else text


def read(folder):
    """The Listing of a folder of ../shared/real, and what is known of it."""
    text = (folder / "lspci.txt").read_text(encoding="utf-8", errors="replace")
    groups = folder / "groups.txt"
    return (Listing(text, groups.read_text() if groups.exists() else None),
            (folder / "about").read_text(encoding="utf-8"))


def split(text):
    """A file of machines/real/: what compact() made, and the reach below."""
    facts, found, reach = text.partition("reach\n")
    return facts, found + reach


def write_real():
    """All of machines/real/ anew, but for what each is known to reach."""
    REAL.mkdir(exist_ok=True)
    for folder in sorted(RAW.iterdir()):
        if (folder / "lspci.txt").exists():
            path = REAL / folder.name
            reach = split(path.read_text())[1] if path.exists() else ""
            path.write_text(compact(*read(folder)) + reach)


def main():
    if sys.argv[1:] == ["--real"]:
        write_real()
        return
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    texts = [pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
             for path in sys.argv[1:]]
    listing = Listing(*texts)
    for note in listing.notes:
        print(f"listing: {note}", file=sys.stderr)
    if listing.refusal():
        sys.exit(f"listing: {listing.refusal()}")
    print(listing.topology(), end="")


if __name__ == "__main__":
    try:
        main()
    except (ListingError, OSError) as error:
        sys.exit(f"listing: {error}")
