# SPDX-License-Identifier: GPL-2.0-only
"""What rig/listing.py makes of lspci's listings, in the forms they have.

No kernel is needed. The real ones are in ../shared/real; where that is missing
the tests that need it are skipped.
"""
import binascii
import html
import re
import subprocess
import tempfile
import textwrap

import listing
from fixtures import Skip
from where import TOP

NEEDS = ""
# How many Functions each real listing has, in all
REAL = {"listings": 47, "functions": 1787}

HEADS = (
    ("00:00.0", "Host bridge", "0600", "Intel Corporation",
     "440FX - 82441FX PMC [Natoma]", "8086:1237"),
    ("00:02.0", "VGA compatible controller", "0300", "Intel Corporation",
     "Device 46a6", "8086:46a6"),
    ("00:1c.0", "PCI bridge", "0604", "Intel Corporation",
     "Device a110", "8086:a110"),
    ("01:00.0", "PCI bridge", "0604", "ASMedia Technology Inc.",
     "Device 2463", "1b21:2463"),
    ("02:04.0", "PCI bridge", "0604", "ASMedia Technology Inc.",
     "Device 2463", "1b21:2463"),
    ("03:00.0", "Ethernet controller", "0200", "Intel Corporation",
     "82576 Gigabit Network Connection", "8086:10c9"),
    ("03:10.0", "Ethernet controller", "0200", "Intel Corporation",
     "82576 Virtual Function", "8086:10ca"),
    ("03:10.2", "Ethernet controller", "0200", "Intel Corporation",
     "82576 Virtual Function", "8086:10ca"),
)
# The ACS Control of a1 10 is in other bits than lspci looks at
ACS = ("\tCapabilities: [140 v1] Access Control Services\n"
       "\t\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd{0}"
       " EgressCtrl- DirectTrans{0}\n"
       "\t\tACSCtl:\tSrcValid{1} TransBlk- ReqRedir{1} CmpltRedir{1} "
       "UpstreamFwd{2} EgressCtrl- DirectTrans-\n")
EXPRESS = "\tCapabilities: [40] Express (v2) {}, MSI 00\n"
BARS = "\tRegion 0: Memory at f7d00000 (64-bit, non-prefetchable) [size=512K]\n"
BUS = ("\tBus: primary={}, secondary={}, subordinate={}, sec-latency=0\n"
       "\tMemory behind bridge: f7c00000-f7dfffff [size=2M]\n")
CONTROL = "\tControl: I/O+ Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop-\n"
SRIOV = ("\tCapabilities: [160 v1] Single Root I/O Virtualization (SR-IOV)\n"
         "\t\tInitial VFs: 8, Total VFs: 8, Number of VFs: 2, Function "
         "Dependency Link: 00\n"
         "\t\tVF offset: 128, stride: 2, Device ID: 10ca\n"
         "\t\tRegion 0: Memory at 0000000000000000 (64-bit)\n")
DRIVER = "\tKernel driver in use: {}\n"
BODIES = (
    CONTROL + "\tIOMMU group: 0\n",
    CONTROL + "\tIOMMU group: 1\n" + BARS
    + EXPRESS.format("Root Complex Integrated Endpoint"),
    CONTROL + "\tIOMMU group: 2\n" + BUS.format("00", "01", "03")
    + EXPRESS.format("Root Port (Slot+)") + ACS.format("-", "-", "-"),
    CONTROL + "\tIOMMU group: 3\n" + BARS + BUS.format("01", "02", "03")
    + EXPRESS.format("Upstream Port"),
    CONTROL + "\tIOMMU group: 4\n" + BUS.format("02", "03", "03")
    + EXPRESS.format("Downstream Port (Slot-)") + ACS.format("+", "+", "+")
    + DRIVER.format("pcieport"),
    CONTROL + "\tIOMMU group: 15\n" + EXPRESS.format("Endpoint")
    + SRIOV + DRIVER.format("igb"),
    CONTROL + "\tIOMMU group: 16\n" + EXPRESS.format("Endpoint"),
    CONTROL + "\tIOMMU group: 17\n" + EXPRESS.format("Endpoint"),
)
TOPOLOGY = """\
segment 0
00:00.0 pci 8086:1237 host-bridge no-mem
00:02.0 rc-endpoint 8086:46a6
00:1c.0 root-port [01-03] 8086:a110 acs=sv+tb-rr+cr+
  01:00.0 upstream [02-03] 1b21:2463 mem
    02:04.0 downstream [03] 1b21:2463 acs=sv+tb-rr+cr+uf+dt-
      03:00.0 endpoint 8086:10c9 vfs=2@80+2 no-mem
"""
GROUPS = {"00:00.0": 0, "00:02.0": 1, "00:1c.0": 2, "01:00.0": 3,
          "02:04.0": 4, "03:00.0": 15, "03:10.0": 16, "03:10.2": 17}
PATHS = {"01:00.0": "00:1c.0/", "02:04.0": "00:1c.0/01:00.0/",
         "03:00.0": "00:1c.0/01:00.0/02:04.0/",
         "03:10.0": "00:1c.0/01:00.0/02:04.0/",
         "03:10.2": "00:1c.0/01:00.0/02:04.0/"}


def make(form="names", address=str, bodies=BODIES):
    """The listing, its heads as lspci without -n, with -n or with -nn."""
    text = ""
    for (where, kind, code, vendor, name, ids), body in zip(HEADS, bodies):
        head = {"names": f"{kind}: {vendor} {name}",
                "n": f"{code}: {ids}",
                "nn": f"{kind} [{code}]: {vendor} {name} [{ids}]"}[form]
        text += f"{address(where)} {head} (rev 02)\n{body}\n"
    return text


def broken(text, width):
    """As a mail program breaks lines: at blanks, and where there is none."""
    lines = []
    for line in text.split("\n"):
        lines += textwrap.wrap(line.expandtabs(), width,
                               break_on_hyphens=False) or [""]
    return "\n".join(lines) + "\n"


def cut(text, width):
    """Lines cut at any place, but for configuration space."""
    lines = []
    for line in text.expandtabs().split("\n"):
        short = len(line) <= width or re.match("[0-9a-f]{2,3}: ", line)
        lines += [line] if short else [
            line[:width], *re.findall(f".{{1,{width}}}", line[width:])]
    return "\n".join(lines) + "\n"


def flat(text):
    return "\n".join(line.strip() for line in text.split("\n"))


def quoted(text):
    return "".join(f"> {line}\n" for line in text.split("\n"))


def denied(text):
    """What lspci -vvv says to a user."""
    return re.sub(r"(\tCapabilities: .*\n(\t\t.*\n)*)+",
                  "\tCapabilities: <access denied>\n", text)


def brief(text):
    """What lspci -v has of what -vvv has."""
    return re.sub(r"\t\tACSC.*\n", "", text).replace(
        CONTROL, "\tFlags: bus master, fast devsel\n")


FORMS = {
    "names": make(),
    "-n": make("n"),
    "-nn": make("nn"),
    "the domain": make(address=lambda where: f"0000:{where}"),
    "-PP": make(address=lambda where: PATHS.get(where, "") + where),
    "-PP and the domain": make(address=lambda where:
                               "0000:" + PATHS.get(where, "") + where),
    "-P": make(address=lambda where: re.sub(
        "/..:", "/", PATHS.get(where, "") + where)),
    "lines wrapped at 60": broken(make(), 60),
    "lines wrapped at 40, with -nn": broken(make("nn"), 40),
    "lines cut at 50": cut(make(), 50),
    "lines cut at 33, with -nn": cut(make("nn"), 33),
    "no indentation": flat(make()),
    "no indentation, wrapped at 50": flat(broken(make(), 50)),
    "> ahead of each line": quoted(make()),
    "> > ahead of each line, wrapped at 60":
        quoted(quoted(broken(make(), 60))),
    "what is in a mail that is quoted-printable":
        binascii.b2a_qp(make().encode()).decode(),
    "DOS line ends": make().replace("\n", "\r\n"),
    "no-break spaces": make().expandtabs().replace("  ", "\u00a0 "),
    "empty lines between the lines": make().replace("\n", "\n\n"),
    "a byte order mark": "\ufeff" + make(),
    "colours": "".join(f"\x1b[0m\x1b[1;32m{line}\x1b[K\n"
                       for line in make().split("\n")),
    "what a web page makes of it": f"<pre><code>{html.escape(make())}</code>",
    "all of it indented": textwrap.indent(make(), "    "),
    "a shell prompt ahead and a log behind":
        "$ sudo lspci -vvv\n" + make() + "[    1.2] pci 0000:00:1c.0: PME# "
        "supported\nBus 001 Device 001: ID 1d6b:0002\n",
    "lspci -nn ahead of lspci -vvv": make("nn", bodies=[""] * 8) + make(),
    "lspci -nn behind lspci -vvv": make() + make("nn", bodies=[""] * 8),
    "the same twice": make() + make(),
    "lspci -v ahead of it": brief(make()) + make(),
    "what a user may see ahead of it": denied(make()) + make(),
    "a prompt with a path behind it": make() + "bash-5.2# lsusb\n"
        "Bus 1: no\n\tIOMMU group: 77\n",
    # Each of these was taken for something else
    "a line that begins with Subsystem": make("nn").replace(
        "[Natoma] ", "Thermal\nSubsystem "),
    "a line that begins with Bus": make("nn").replace(
        "Device 46a6", "Bridge to\nBus [C:B]"),
    "a line that begins with Control": make("nn").replace(
        "Device 46a6", "Power\nControl Unit"),
    "a line that begins with WAKE#": make().replace(
        "Port (Slot-), MSI 00", "Port (Slot-), MSI 00\n\t\tDevCap2: OBFF Via "
        "W\nAKE# ARIFwd-"),
    "a line of zeros with a colon":
        make().replace("f7d00000 (", "f7d00000 0\n000:0000\n("),
}


def same(text):
    found = listing.Listing(text)
    assert found.topology() == TOPOLOGY, found.topology()
    assert {listing.show(address): number
            for address, number in found.groups.items()} == GROUPS, \
        found.groups
    driver = found.functions[listing.parse_address("03:00.0")].driver
    assert driver == "igb", driver


def lines_of(text, **options):
    """The lines of the topology by address, and what is noted."""
    found = listing.Listing(text, **options)
    return ({line.split()[0]: line.strip()
             for line in found.topology().splitlines()},
            "\n".join(found.notes))


def kernel_enables_acs():
    lines, _ = lines_of(make("nn"), acs="listed", groups="")
    assert lines["00:1c.0"].endswith("acs=sv-tb-rr-cr-"), lines["00:1c.0"]
    lines, _ = lines_of(make("nn").replace("ReqRedir+", "ReqRedir-"),
                        acs="listed")
    # Sunrise Point's is not where lspci looks; there are groups, so it is on
    assert lines["00:1c.0"].endswith("acs=sv+tb-cr+"), lines["00:1c.0"]


def pch_isolates():
    text = make("nn").replace("[8086:a110]", "[8086:1c10]")
    text = re.sub(r"\tCapabilities: \[140.*\n.*\n.*\n", "", text)
    lines, _ = lines_of(text)
    assert lines["00:1c.0"].endswith("8086:1c10 pch-acs"), lines["00:1c.0"]
    lines, _ = lines_of(text, acs="listed")
    assert lines["00:1c.0"].endswith("8086:1c10"), lines["00:1c.0"]


def verbose_once():
    lines, notes = lines_of(brief(make("nn")))
    assert lines["02:04.0"].endswith(" acs"), lines["02:04.0"]
    assert "lspci -v says where" in notes, notes


def config(*changes, size=256):
    """What -xxx prints of configuration space: (offset, bytes)."""
    space = bytearray(size)
    for where, what in changes:
        space[where:where + len(what)] = what
    return "".join(f"{where:02x}: {space[where:where + 16].hex(' ')}\n"
                   for where in range(0, size, 16))


HEADER = (0, bytes.fromhex("868010a1 07001000 01000406 00008100"))
PORT = ((0x18, b"\0\1\3"), (0x34, b"\x40"), (0x40, b"\x10\0\x42\0"))


def hexadecimal():
    """A Root Port with the bit, and the wide registers of Sunrise Point."""
    text = "00:1c.0 PCI bridge: Intel Corporation Device a110\n"
    acs = ((0x100, b"\x0d\0\1\0"), (0x104, b"\x0f\0\0\0"))
    whole = text + config(HEADER, *PORT, *acs, (0x108, b"\x0d"), size=4096)
    lines, notes = lines_of(whole, acs="listed")
    assert lines["00:1c.0"] == (
        "00:1c.0 root-port [01-03] 8086:a110 acs=sv+tb-rr+cr+ mf"), lines
    assert not notes, notes
    lines, notes = lines_of(text + config(HEADER, *PORT))
    assert lines["00:1c.0"] == "00:1c.0 root-port [01-03] 8086:a110 mf", lines
    assert "no Extended Capabilities" in notes, notes
    lines, notes = lines_of(broken(whole, 40), acs="listed")
    assert lines["00:1c.0"].endswith("acs=sv+tb-rr+cr+ mf"), lines


def multi_function_bit():
    """Some functions beside Function 0 lack it, which only hex can show."""
    text = "".join(
        f"00:1c.{number} PCI bridge: Intel Corporation Device a110\n" + config(
            HEADER, (0xe, bytes([mf])), (0x18, bytes([0, number + 1, number + 1])),
            *PORT[1:]) for number, mf in ((0, 0x81), (1, 0x81), (2, 1)))
    lines, _ = lines_of(text)
    assert lines["00:1c.1"] == "00:1c.1 root-port [02] 8086:a110", lines
    assert lines["00:1c.2"] == "00:1c.2 root-port [03] 8086:a110 no-mf", lines


def names_of_several():
    """A name that a quirk's ID has and another one as well is said to be."""
    if not listing.names().ids:
        raise Skip("there is no pci.ids")
    name = "C600/X79 series chipset PCI Express Root Port 1"
    text = make().replace("Device a110", name)
    text = re.sub(r"\tCapabilities: \[140.*\n.*\n.*\n", "", text, count=1)
    lines, notes = lines_of(text)
    assert lines["00:1c.0"] == "00:1c.0 root-port [01-03] 8086:0000", lines
    assert "several IDs, of which a quirk of the kernel knows some; surer is " \
        "lspci -nn: 00:1c.0" in notes, notes
    # An ID in the same words decides
    lines, notes = lines_of(text.replace(name, f"{name} [8086:1d10]"))
    assert lines["00:1c.0"].endswith("8086:1d10 pch-acs"), lines
    assert "several" not in notes, notes


def empty_ports():
    """A hot-plug port with buses and nothing there; one that has no bus yet."""
    text = make("nn")
    port = text[text.index("00:1c.0"):text.index("01:00.0")]
    for where, second, last, bus in ((1, "04", "33", "[04-33]"),
                                     (2, "00", "00", "[34]")):
        text += port.replace("00:1c.0", f"00:1c.{where}").replace(
            "secondary=01, subordinate=03",
            f"secondary={second}, subordinate={last}")
        lines, notes = lines_of(text)
        assert lines[f"00:1c.{where}"].startswith(
            f"00:1c.{where} root-port {bus} "), lines
    assert "bridges without a bus were given one: 00:1c.2" in notes, notes


def silent_functions():
    text = make("nn").replace("[8086:10c9] (rev 02)\n" + BODIES[5],
                              "[8086:10c9] (rev ff) (prog-if ff)\n"
                              "\t!!! Unknown header type 7f\n")
    lines, notes = lines_of(text)
    assert lines["03:00.0"].startswith("03:00.0 endpoint 8086:10c9"), lines
    assert "do not answer" in notes, notes
    text = "".join(f"{where}: Intel Corporation Device {device}\n"
                   + config(*space) for where, device, space in (
                       ("00:1c.0 PCI bridge", "a110", (HEADER, *PORT)),
                       ("01:00.0 VGA controller", "1234",
                        ((0, b"\xff" * 256),))))
    lines, notes = lines_of(text)
    assert lines["01:00.0"].startswith("01:00.0 endpoint 8086:1234"), lines
    assert "do not answer" in notes, notes
    # It is there in another listing
    words = make("nn")
    lines, notes = lines_of(text + words[words.index("00:1c.0"):
                                         words.index("02:04.0")])
    assert lines["01:00.0"].startswith("01:00.0 upstream"), lines
    assert not notes, notes


def virtual_functions():
    """The IDs in their configuration space are ff, and they are there."""
    card = (0x40, b"\x10\0\2\0"), (0x34, b"\x40")
    text = "".join(
        f"03:{where} Ethernet controller: Intel Corporation {name}\n"
        + config((0, bytes.fromhex(space)), *card, (0x100, sriov), size=4096)
        for where, name, space, sriov in (
            ("00.0", "82576 Gigabit Network Connection",
             "8680c910 0700 1000 01000002", b"\x10\0\1\0" + b"\0" * 12
             + b"\2\0\0\0\x80\0\2\0"),
            ("10.0", "82576 Virtual Function", "ffffffff 0400 1000 01000002", b""),
            ("10.2", "82576 Virtual Function", "ffffffff 0400 1000 01000002", b"")))
    found = listing.Listing(text)
    assert " vfs=2@80+2" in found.topology(), found.topology()
    assert len(found.virtual) == 2 and not found.notes, found.notes


def function_0_missing():
    lines, notes = lines_of(make("nn").replace("00:1c.0", "00:1c.4"))
    assert lines["00:1c.0"] == "00:1c.0 rc-endpoint acs no-mem", lines
    assert "Function 0 is not in the listing: 00:1c.0" in notes.replace(
        "; one that isolates stands for it", ""), notes


def pieces():
    text = make("nn")
    lines, notes = lines_of(text[text.index("02:04.0"):])
    assert lines["segment"] == "segment 0 bus 02" and len(lines) == 3, lines
    text = text.replace("00:1c.0 PCI", "80:1c.0 PCI")
    found = listing.Listing(text)
    assert "segment 0 bus 80\n80:1c.0" in found.topology(), found.topology()


def volumes():
    text = make("nn", lambda where: "0000:" + where)
    text = text.replace("VGA compatible controller [0300]",
                        "RAID bus controller [0104]")
    text = text.replace("8086:46a6", "8086:467f")
    lower = "".join(f"10000:{rest}" if i else rest for i, rest in enumerate(
        re.split("0000:(?=0[123]:|00:1c)", text)))
    lower = lower.replace("10000:00:1c.0", "10000:e0:1c.0")
    found = listing.Listing(lower)
    assert "segment 10000 bus e0 behind 00:02.0\ne0:1c.0" in \
        found.topology(), found.topology()


def two_machines():
    other = make("nn").split("01:00.0")[0]
    found = listing.Listing(other + make("nn"))
    assert found.topology() == TOPOLOGY, found.topology()
    assert "listings of 3 and 8 functions" in found.notes[0], found.notes


REFUSALS = {
    "no listing": ("Hello,\n\nmy machine has no groups.\n", "no listing"),
    "names only": (make("nn", bodies=[""] * 8), "names only"),
    "what a user may see": (denied(make()), "as root"),
    "what a user may see, from a web page": (html.escape(denied(make())),
                                             "as root"),
    "64 bytes of configuration space": (
        "00:1c.0 PCI bridge: Intel Corporation Device a110\n"
        + config(HEADER, (0x34, b"\x40"), size=64), "or with -x"),
}


def refused(text, why):
    try:
        listing.Listing(text)
    except listing.ListingError as error:
        assert why in str(error) and "sudo lspci" in str(error), error
    else:
        raise AssertionError("it is taken")


def power():
    found = listing.Listing("0000:00:00.0 PCI bridge: IBM Device 04c1\n"
                            + BODIES[2])
    assert "POWER" in found.refusal(), found.refusal()
    assert listing.Listing(make()).refusal() is None


def refused_first():
    """A fresh clone builds two kernels for it, which takes its time."""
    said = subprocess.run(["make", "-n", "replay"], cwd=TOP, text=True,
                          capture_output=True, check=True).stdout.splitlines()
    assert said.index("scripts/replay --check") < said.index("scripts/tree"), said
    for text, why in ((make(), None), *REFUSALS.values()):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            done = subprocess.run(
                [TOP / "scripts/replay", "--check", file.name],
                capture_output=True, text=True, check=False)
        assert not done.stdout and bool(done.returncode) == bool(why), done
        assert (why or "") in done.stderr and bool(done.stderr) == bool(why), done


GROUP_TEXTS = {
    "find": "/sys/kernel/iommu_groups/{1}/devices/0000:{0}\n",
    "find -ls": "  71  0 lrwxrwxrwx  1 root  root  0 Nov  1 10:00 "
                "/sys/kernel/iommu_groups/{1}/devices/0000:{0} -> "
                "../../../../devices/pci0000:00/0000:00:01.1/0000:{0}\n",
    "find, in that folder": "./{1}\n./{1}/devices\n./{1}/devices/0000:{0}\n",
    "ls -R": "/sys/kernel/iommu_groups/{1}/devices:\n0000:{0}\n\n",
    "ls -lR, in that folder":
        "./{1}/devices:\ntotal 0\nlrwxrwxrwx 1 root root 0 Nov  1 10:00 "
        "0000:{0} -> ../../../../devices/pci0000:00/0000:00:01.1/0000:{0}\n",
    "ls -l of devices' links":
        "lrwxrwxrwx 1 root root 0 Nov  1 10:00 /sys/bus/pci/devices/0000:{0}/"
        "iommu_group -> ../../../../kernel/iommu_groups/{1}\n",
    "tree": "├── {1}\n│   ├── devices\n│   │   └── 0000:{0} -> ../../../../"
            "devices/pci0000:00/0000:00:01.1/0000:{0}\n│   └── type\n",
    "grep, of our id files":
        "/sys/bus/pci/devices/0000:{0}/iommu_group/id:{1}\n",
    "lsiommu": "Group {1}: cannot be owned whole: 0000:00:02.0 is on i915\n"
               "    reaches group 77, 0000:00:1f.0 (switch 0000:00:1c.0)\n"
               "`-- 0000:{0}  igb  alias 0000:00:1f.0  PCI bridge: X [1:2]\n",
    "dmesg": "[    0.4] pci 0000:{0}: Adding to iommu group {1}\n",
    "dmesg, with more in it":
        "[    0.3] block group 99 is there\n[    0.4] pci 0000:{0}: Adding to "
        "iommu group 98\n[    0.5] pci 0000:{0}: Removing from iommu group 98\n"
        "[    0.6] pci 0000:{0}: Adding to iommu group {1}\n"
        "[    0.7] pcieport 0000:00:1f.0: PME: Signaling with IRQ 122\n",
    "an old dmesg": "[    0.4] iommu: Adding device 0000:{0} to group {1}\n",
    "a loop, in a line": "IOMMU Group {1} {0} PCI bridge [0604]: X [8086:1]\n",
    "a loop, in two lines": "IOMMU Group {1}:\n\t{0} PCI bridge [0604]: X\n",
    "a loop with IDs ahead":
        "Group {1}:\t[8086:a110] [R] {0}  PCI bridge\n",
    "lspci": "{0} PCI bridge: X\n\tIOMMU group: {1}\n",
    "a loop, number and device in a line each": "{1}\n0000:{0}\n",
    "numbers and addresses": "{1} {0}\n",
    "addresses and numbers": "0000:{0}: {1}\n",
}


def groups_are_read(form):
    text = "".join(form.format(*each) for each in GROUPS.items())
    found = {listing.show(address): number
             for address, number in listing.parse_groups(text).items()}
    assert found == GROUPS, found


# The real ones

def folders():
    if not listing.RAW.is_dir():
        raise Skip("there is no ../shared/real")
    return sorted(folder for folder in listing.RAW.iterdir()
                  if (folder / "lspci.txt").exists())


def raw(folder):
    return (folder / "lspci.txt").read_text(encoding="utf-8", errors="replace")


def real_counts():
    total = 0
    for folder in folders():
        heads = set(re.findall(
            r"^(?:> )?((?:[0-9a-f]{4,5}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
            r"(?:/\S+)?) (?=[A-Z3]|[0-9a-f]{4}:)", raw(folder), re.MULTILINE))
        found, _ = listing.read(folder)
        assert len(found.functions) == len(heads), \
            f"{folder.name}: {len(found.functions)} of {len(heads)}"
        lines = [line for line in found.topology().splitlines()
                 if not line.startswith("segment ")]
        assert len(lines) + len(found.virtual) == \
            len(heads) + len(found.added), f"{folder.name}: {len(lines)} lines"
        total += len(heads)
    assert len(folders()) == REAL["listings"], len(folders())
    assert total == REAL["functions"], total


def real_groups():
    """What groups.txt was made of is in the listings too."""
    for folder in folders():
        found, _ = listing.read(folder)
        if (folder / "groups.txt").exists():
            assert listing.Listing(raw(folder)).groups == found.groups, \
                folder.name


def real_hexadecimal():
    """Configuration space, and what lspci says of it, are the same."""
    compared = 0
    for folder in folders():
        text = raw(folder)
        hexes = re.compile(r"^[0-9a-f]{2,3}: ([0-9a-f]{2} ?){16}$\n",
                           re.MULTILINE)
        if not hexes.search(text) or "Capabilities" not in text:
            continue
        whole = listing.Listing(text).topology()
        words = listing.Listing(hexes.sub("", text)).topology()
        for one, two in zip(whole.splitlines(), words.splitlines()):
            one = re.sub(" (no-)?mf| [0-9a-f]{4}:[0-9a-f]{4}", "", one)
            two = re.sub(" [0-9a-f]{4}:[0-9a-f]{4}", "", two)
            # lspci does not show a BAR that Linux gave no address
            assert two in (one, f"{one} no-mem"), f"{folder.name}: {one}"
        compared += 1
    assert compared >= 4, compared


def real_wrapped():
    """Each at other widths, so that lines break at many places."""
    for number, folder in enumerate(folders()):
        text = raw(folder)
        if not text.startswith(">"):
            plain = listing.Listing(text)
            for change in (quoted(text), cut(text, 40 + number),
                           broken(text, 120 - number)):
                found = listing.Listing(change)
                assert found.topology() == plain.topology(), folder.name
                assert found.groups == plain.groups, folder.name


def without_ids(text):
    """Which IDs a name has depends on the pci.ids of who asks."""
    return re.sub(" [0-9a-f]{4}:[0-9a-f]{4}(?= |$)| pch-acs", "", text,
                  flags=re.MULTILINE)


def real_compact():
    """machines/real/ is what rig/listing.py --real writes."""
    names = {folder.name for folder in folders()}
    there = {path.name for path in listing.REAL.glob("*")}
    assert not names - there, names - there     # and those that people added
    for folder in folders():
        facts, _ = listing.split((listing.REAL / folder.name).read_text())
        made = listing.compact(*listing.read(folder))
        assert without_ids(facts) == without_ids(made), \
            f"{folder.name} differs"


def only_what_is_grouped():
    """What left its group, and what is named only in passing, is in none."""
    text = ("pci 0000:00:1c.0: Adding to iommu group 2\n"
            "pci 0000:03:00.0: Adding to iommu group 15\n"
            "pci 0000:03:00.0: Removing from iommu group 15\n"
            "pci 0000:00:1f.0: PME# disabled\n")
    assert listing.parse_groups(text) == {
        listing.parse_address("00:1c.0"): 2}, listing.parse_groups(text)


def cases():
    for form, text in FORMS.items():
        yield f"a listing with {form} gives its topology", same, text
    yield "ACS is as the kernel sets it, or as listed", kernel_enables_acs
    yield "Intel's older chipsets isolate by a quirk", pch_isolates
    yield "lspci -v is taken, and said to be unsure", verbose_once
    yield "configuration space alone will do", hexadecimal
    yield "the Multi-Function bit is taken from configuration space", \
        multi_function_bit
    yield "a name that several IDs have is said to be", names_of_several
    yield "ports without anything below them are kept", empty_ports
    yield "functions that do not answer are kept", silent_functions
    yield "VFs are known by their PF, whatever their IDs read as", \
        virtual_functions
    yield "a missing Function 0 is stood for", function_0_missing
    yield "a piece of a machine, or several root buses, will do", pieces
    yield "what is behind a VMD device does its DMA", volumes
    yield "of two machines the fuller one is taken", two_machines
    for what, (text, why) in REFUSALS.items():
        yield f"{what} is refused, with the command to use", refused, text, why
    yield "make replay refuses before it builds anything", refused_first
    yield "POWER's machines are known", power
    for form, text in GROUP_TEXTS.items():
        yield f"groups are read from {form}", groups_are_read, text
    yield "a log says who is in a group no more", only_what_is_grouped
    yield "the real listings have the functions that they list", real_counts
    yield "the real listings give the groups that were reported", real_groups
    yield "configuration space is what lspci says it is", real_hexadecimal
    yield "the real listings may be quoted, and cut", real_wrapped
    yield "machines/real/ has the facts of the real listings", real_compact
