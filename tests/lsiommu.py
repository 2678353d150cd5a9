# SPDX-License-Identifier: GPL-2.0-only
"""lsiommu, the program of the series that lists groups: in guests, and over
made-up trees of sysfs on the host."""
import json
import os
import pathlib
import re
import subprocess
import tempfile
import threading

import guest
import machine
from fixtures import GROUP_MF, PLAIN, TESTED, UNBOUND, VENDORS, X86_IOMMUS, Skip, bind, \
    boot, claims, news, own, vfio_name
from where import BUILD

NEEDS = "stock arm64 userspace"
PROGRAM = pathlib.Path(os.environ.get("LSIOMMU") or BUILD / "guest/lsiommu")
MAN = BUILD / "linux/tools/iommu/lsiommu.8"
EPERM = "1"
COLUMNS = 100
OPEN = "somebody has it open"
ONE_TO_ONE = "Firmware has requested this device have a 1:1 IOMMU mapping"

# What the guests have of drivers that leave a group to others.
MANAGED = ("pcieport", "vfio-pci")

# A member's line in the tree, and what of a graph in dot's language there is.
MEMBER = re.compile(r"(\||`)-- (\S+) +(\S+) ")
DOT = re.compile(r'\s+|"(?:[^"\\]|\\.)*"|->|[][{}=;,]|[A-Za-z_]\w*|[0-9.]+')


def key(device):
    """Devices in the order of their addresses."""
    segment, bus, rest = device.split(":")
    return int(segment, 16), bus, rest


def reach_lines(group):
    """What the tree has of what the JSON says that a group reaches."""
    return ["    reaches " + ("" if one["group"] is None
                              else f"group {one['group']}, ")
            + f"{one['device']} ({one['rule']} {one['port']}"
            + (f": {one['fault']})" if one["fault"] else ")")
            for one in group.get("reach", [])]


def reason_of(device):
    """As the kernel writes it."""
    reason = device.get("reason")
    return reason and " ".join(filter(None, (reason["rule"],
                                             reason["device"])))


def titles(said):
    """By the tree's first lines: devices, and what the group reaches."""
    found = [(f"Group {group['group']}", group["devices"], reach_lines(group))
             for group in said["groups"]]
    for why in dict.fromkeys(device["why"] for device in said["ungrouped"]):
        found.append((f"No group: {why}",
                      [device for device in said["ungrouped"]
                       if device["why"] == why], []))
    return found


def graph(text):
    """Titles of frames, attributes of nodes by ID, and edges with theirs.

    Fails on what is no graph.
    """
    tokens, at = [], 0
    while at < len(text):
        token = DOT.match(text, at)
        assert token, f"this is not dot: {text[at:at + 60]!r}"
        if not token.group().isspace():
            tokens.append(token.group())
        at = token.end()
    for quoted in tokens:
        assert not re.search(r"&(?!amp;)", quoted), f"an entity: {quoted}"
    depth = 0
    for token in tokens:
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0, "a } too much"
    assert not depth, "a } is missing"
    frames = [unquote(tokens[at + 2]) for at, token in enumerate(tokens)
              if token == "tooltip"]
    assert tokens.count("subgraph") == len(frames), text
    nodes, edges, at = {}, [], 0
    for at, token in enumerate(tokens):
        if token != "[" or not tokens[at - 1].startswith('"'):
            continue
        found = attributes(tokens[at + 1:tokens.index("]", at)])
        if tokens[at - 2] == "->":
            edges.append((tokens[at - 3], tokens[at - 1], found))
        else:
            assert tokens[at - 1] not in nodes, tokens[at - 1]
            nodes[tokens[at - 1]] = found
    for source, target, _ in edges:
        assert source in nodes and target in nodes, (source, target)
    return frames, nodes, edges


def unquote(token):
    return re.sub(r'\\(["\\])', r"\1", token[1:-1].replace("&amp;", "&")) \
        if token.startswith('"') else token


def attributes(tokens):
    assert tokens[1::4] == ["="] * len(tokens[::4]), tokens
    assert set(tokens[3::4]) <= {","}, tokens
    return {key: unquote(value) for key, value in zip(tokens[::4], tokens[2::4])}


def boxes(nodes):
    """The devices of a graph: their names by ID, and the lines in the boxes."""
    found = {name: one["label"].split("\\n") for name, one in nodes.items()
             if one["class"] == "device"}
    return {name: lines[0].split("  ")[0] for name, lines in found.items()}, found


def as_picture(said, text, firsts):
    """The graph has the devices, groups, ports, reasons and reach of the JSON.

    firsts  the first lines of groups in the tree, by number
    """
    frames, nodes, edges = graph(text)
    names, labels = boxes(nodes)
    devices = {device["device"]: device for group in said["groups"]
               for device in group["devices"]}
    devices |= {device["device"]: device for device in said["ungrouped"]}
    assert sorted(names.values()) == sorted(devices), names
    assert frames == [firsts[group["group"]] for group in said["groups"]
                      if len(group["devices"]) != 1], frames
    number = {device["device"]: group["group"] for group in said["groups"]
              for device in group["devices"]}
    alone = {group["devices"][0]["device"] for group in said["groups"]
             if len(group["devices"]) == 1}
    for identity, name in names.items():
        last = labels[identity][-1]
        if name not in number:
            assert last == "no group", last
        elif name in alone:
            assert last == f"group {number[name]}", last

    def of_kind(*kinds):
        return [(names.get(source), names.get(target), source, target, looks)
                for source, target, looks in edges if looks["class"] in kinds]

    named = sorted((device["device"], device["reason"]["device"],
                    device["reason"]["rule"]) for device in devices.values()
                   if device.get("reason", {}).get("device"))
    assert named == sorted((source, target, looks["label"]) for source, target,
                           *_, looks in of_kind("reason")), named

    # Each device is below the port that its path ends at, or beside others there.
    above = {target: source for _, _, source, target, _ in of_kind("below", "bus")}
    assert len(above) == len(of_kind("below", "bus")), "two ways to a device"
    for identity, name in names.items():
        path = devices[name].get("path")
        if path is None or "/vf" in path:
            continue
        while nodes[above[identity]]["class"] == "device" and \
                devices[names[above[identity]]]["path"].rpartition("/")[0] == \
                path.rpartition("/")[0]:
            identity = above[identity]
        top = above[identity]
        if "/" in path:
            assert devices[names[top]]["path"] == path.rpartition("/")[0], path
        else:
            assert nodes[top]["class"] == "root" and nodes[top]["label"] == \
                "bus " + name.rpartition(":")[0], (name, nodes[top])

    # From a group to a place, and on from there.
    ways = {}
    for source, target, from_, to, looks in of_kind("reach"):
        if looks.get("label") == "late":
            ways.setdefault("late", set()).add((number.get(source), target))
            continue
        if looks["dir"] in ("both", "forward"):
            ways.setdefault((to, "in"), set()).add(number.get(source))
        if looks["dir"] in ("both", "back"):
            ways.setdefault((to, "out"), set()).add(source)
    places = {kind for kind, _ in (way for way in ways if way != "late")}
    for group in said["groups"]:
        for one in group.get("reach", []):
            if one["rule"] == "late":
                assert (group["group"], one["device"]) in ways["late"], one
                continue
            assert any(group["group"] in ways.get((place, "in"), ()) and
                       one["device"] in ways.get((place, "out"), ())
                       for place in places), one


def as_sysfs(name, iommu, cmdline, kernel):
    """The JSON has each group, member, driver and reason, in order."""
    found = boot(name, iommu, cmdline, kernel)
    said = json.loads(found.lsiommu["--json"])
    numbers = [group["group"] for group in said["groups"]]
    assert numbers == sorted(numbers), numbers
    listed = {group["group"]: [device["device"] for device in group["devices"]]
              for group in said["groups"]}
    assert {number: set(devices) for number, devices in listed.items()} \
        == found.members, f"{listed}, not {found.members}"
    assert {machine.short(device["device"]): device["unit"]
            for group in [*said["groups"], {"devices": said["ungrouped"]}]
            for device in group["devices"]} == found.units
    assert any(found.units.values()), found.units
    listed[None] = [device["device"] for device in said["ungrouped"]]
    for devices in listed.values():
        assert devices == sorted(devices, key=key), devices
    assert set(listed[None]) == set(map(machine.full, found.ungrouped()))
    for group in said["groups"]:
        for device in group["devices"]:
            short = machine.short(device["device"])
            driver = found.drivers[short]
            on_host = driver is not None and driver not in MANAGED
            assert found.groups[short] == group["group"]
            assert device["bus"] == "pci", device
            assert device["driver"] == driver, device
            assert device["host_driver"] == on_host, device
            reason = reason_of(device)
            assert (reason and reason.replace(" 0000:", " ")) == \
                found.reasons.get(short), device
        assert group["ownable"] != (any(device["host_driver"] for device
                                        in group["devices"])
                                    or group["obstacles"] == [ONE_TO_ONE]), group
    for device in said["ungrouped"]:
        assert device["driver"] == \
            found.drivers[machine.short(device["device"])], device
        assert "reason" not in device, device


def same_in_all_forms(name, iommu, cmdline, kernel):
    """The tree and the picture have what the JSON has, members in order."""
    found = boot(name, iommu, cmdline, kernel)
    said = json.loads(found.lsiommu["--json"])
    groups = titles(said)
    trees = found.lsiommu[""].rstrip("\n").split("\n\n")
    assert len(trees) == len(groups), found.lsiommu[""]
    firsts = {}
    for (title, devices, reach), tree in zip(groups, trees):
        assert all(len(line) <= COLUMNS for line in tree.splitlines()), tree
        first, *lines = re.sub(r"\n {4,8}(?! |reaches)", " ",
                               tree).splitlines()
        below = lines[len(devices):]
        assert below == reach, f"{below}, not {reach}"
        lines = lines[:len(devices)]
        assert first.startswith(title), f"{first}, not {title}"
        if first.startswith("Group "):
            firsts[int(re.search(r"\d+", first)[0])] = first
        assert len(lines) == len(devices), tree
        for device, line in zip(devices, lines):
            branch, *cells = MEMBER.match(line).groups()
            assert cells == [device["device"], device["driver"] or "-"], line
            assert (branch == "`") == (line is lines[-1]), tree
            assert (reason_of(device) or "") in line, line
            assert f"[{device['vendor_id']}:{device['device_id']}]" in line
    as_picture(said, found.lsiommu["--dot"], firsts)


def names_of_devices():
    """In a guest, out of the list where Debian has it."""
    said = json.loads(boot("demo", "intel").lsiommu["--json"])
    devices = {device["device"]: device for group in said["groups"]
               for device in group["devices"]}
    for device, kind, vendor, name in (
            ("0000:00:04.0", "Ethernet controller", "Intel Corporation",
             "82574L Gigabit Network Connection"),
            ("0000:04:00.0", "PCI bridge", "Texas Instruments",
             "XIO3130 PCI Express Switch (Downstream)"),
            ("0000:05:00.0", "Unclassified device", None, None)):
        found = devices[device]
        assert [found[key] for key in ("class_name", "vendor_name",
                                       "device_name")] \
            == [kind, vendor, name], found
        what = " ".join(filter(None, [kind + ":", vendor, name]))
        lines = [line for line in boot("demo", "intel").lsiommu[""].splitlines()
                 if f"-- {device} " in line and what[:25] in line]
        assert len(lines) == 1, what


def states_as_kernel(iommu, policy):
    """Whoever else comes is granted or refused a group as it is said."""
    with guest.Guest("switch", iommu, kernel=TESTED, log="lsiommu-state",
                     cmdline=f"iommu.reach={policy}") as running:
        if running.run("ls /sys/kernel/iommu_groups/*/state")[0]:
            raise Skip("this kernel does not show the state of groups")
        bind(running, "03:00.0 04:00.0")

        def look(number):
            return json.loads(running.sh(f"lsiommu --json {number}"))["groups"][0]

        for number in (512, 520):
            group = look(number)
            assert group["state"] == "idle" and group["ownable"], group
            assert claims(running, f"group {number}") == ["0"]
        own(running, "group 512")
        owned, reached = look(512), look(520)
        assert owned["state"] == "owned" and not owned["ownable"], owned
        assert owned["obstacles"] == ["it has an owner"], owned
        # Its node is somebody's already.
        assert running.run("vfio-claim group 512")[0]
        assert reached["state"] == "reached" and reached["reached_by"] == [512]
        # Both ways; the kernel stops at the first.
        line = "0000:03:00.0 (another owner) can be reached past 0000:02:01.0: no ACS"
        other = "group 512 of another owner reaches 0000:04:00.0 past " \
            "0000:02:00.0: no ACS"
        news(running)
        if policy == "refuse":
            assert reached["ownable"] is False, reached
            assert reached["obstacles"] == [line, other], reached
            assert claims(running, "group 520") == [EPERM]
        else:
            assert reached["ownable"] is None, reached
            assert reached["warning"] == line, reached
            assert claims(running, "group 520") == ["0"]
        assert any(said.endswith(line) for said in news(running))


def ownable_as_kernel(iommu):
    """A group is said to be held by a host driver where VFIO finds it so."""
    with guest.Guest("demo", iommu, kernel=TESTED, log="lsiommu",
                     more=["virtio-rng-pci,bus=dmi0,addr=3.0"]) as running:
        def look():
            said = json.loads(running.sh("lsiommu --json 07:01.0"))
            group, = said["groups"]
            assert [device["device"][5:] for device in group["devices"]] == \
                ["00:1e.0", "07:01.0", "07:02.0", "07:03.0"], group
            return group

        def claim():
            said = running.sh(f"vfio-claim group {look()['group']}")
            return said.split()[1]

        bind(running, "07:01.0")
        group = look()
        held = [device["device"] for device in group["devices"]
                if device["host_driver"]]
        assert held == ["0000:07:03.0"] and not group["ownable"], group
        says = (f"Group {group['group']}: cannot be owned: "
                "0000:07:03.0 is on virtio-pci")
        assert says + "\n" in running.sh("lsiommu 07:02.0")
        assert f'tooltip="{says}";' in running.sh("lsiommu --dot 07:02.0")
        assert claim() == EPERM
        running.sh("echo 0000:07:03.0 > "
                   "/sys/bus/pci/devices/0000:07:03.0/driver/unbind")
        assert look()["ownable"] and claim() == "0"
        assert "cannot" not in running.sh("lsiommu 07:02.0")
        bind(running, "07:03.0")
        assert look()["ownable"] and claim() == "0"


class Tree:
    """A directory like /sys, for lsiommu to read."""

    def __enter__(self):
        self.place = tempfile.TemporaryDirectory()
        self.top = pathlib.Path(self.place.name)
        (self.top / "kernel").mkdir()
        return self

    def __exit__(self, *error):
        self.place.cleanup()

    def group(self, number, name=None):
        where = self.top / f"kernel/iommu_groups/{number}"
        (where / "devices").mkdir(parents=True, exist_ok=True)
        if name is not None:
            (where / "name").write_bytes(os.fsencode(name) + b"\n")
        return where

    def device(self, name, group=None, bus="pci", driver=None, entry=None,
               vfio=False, below="", **files):
        """A device; of PCI it is a network card where not said otherwise.

        below   the directories between it and /sys/devices/<bus>
        """
        where = self.top / "devices" / bus / below / name
        where.mkdir(parents=True)
        if bus == "pci":
            files = {"class": "0x020000", "vendor": "0x8086",
                     "device": "0x10d3", **files}
        for file, text in files.items():
            (where / file).write_bytes(os.fsencode(text) + b"\n")
        if vfio:
            (where / "vfio-dev").mkdir()
        links = self.top / "bus" / bus / "devices"
        links.mkdir(parents=True, exist_ok=True)
        (links / name).symlink_to(where)
        (where / "subsystem").symlink_to(self.top / "bus" / bus)
        if driver:
            (where / "driver").symlink_to(f"../../bus/{bus}/drivers/{driver}")
        if group is not None:
            (self.group(group) / "devices" / (entry or name)).symlink_to(where)
            (where / "iommu_group").symlink_to(self.group(group))
        return where

    def link(self, name, where):
        """What makes a device known by another name."""
        place = self.top / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(where)

    def run(self, *arguments):
        """Exit status, and both streams as text."""
        done = subprocess.run([PROGRAM, "--sysfs", self.top, *arguments],
                              stdin=subprocess.DEVNULL, capture_output=True)
        return done.returncode, done.stdout.decode(), \
            done.stderr.decode(errors="replace")

    def said(self, *arguments):
        status, out, errors = self.run(*arguments)
        assert not status and not errors, f"{status}: {errors}"
        return out

    def json(self, *arguments):
        return json.loads(self.said("--json", *arguments))

    def fails(self, reason, *arguments):
        status, out, errors = self.run(*arguments)
        assert status == 1 and not out and reason in errors, \
            f"{arguments}: {status}, not '{reason}': {out}{errors}"


def what_is_reached():
    """As the file has it, where there is one that can be read."""
    lines = ("40 switch 0000:02:00.0 0000:00:05.0\n"
             "- late 0000:00:04.0 0000:00:06.0\nnonsense\n")
    with Tree() as tree:
        for number in (32, 40, 48):
            tree.device(f"0000:00:0{number // 8}.0", number)
        (tree.group(32) / "reach").write_text(lines)
        (tree.group(40) / "reach").write_text("")
        said = tree.json()["groups"]
        text = tree.said("32").splitlines()
        rest = tree.said("40", "48")
    assert said[0]["reach"] == [
        {"group": 40, "rule": "switch", "port": "0000:02:00.0",
         "device": "0000:00:05.0", "fault": None},
        {"group": None, "rule": "late", "port": "0000:00:04.0",
         "device": "0000:00:06.0", "fault": "tied late"}], said[0]
    assert said[1]["reach"] == [] and "reach" not in said[2], said
    assert all(group["ownable"] for group in said), said
    assert text[-2:] == [
        "    reaches group 40, 0000:00:05.0 (switch 0000:02:00.0)",
        "    reaches 0000:00:06.0 (late 0000:00:04.0: tied late)"], text
    assert "reaches" not in rest, rest


# What the kernel shows of three groups, and what is said of the first, which has
# 00:04.0 and 00:04.1, while 00:05.0 is in 40 and 00:06.0 in 48.
PAST = "past 0000:00:03.0: no ACS"
STATUS = (
    # policy, states, drivers, reach by group, first line, ownable
    (None, {}, {}, {}, "no driver of the host is in the way", True),
    (None, {}, {"04.1": "nvme"}, {},
     "cannot be owned: 0000:00:04.1 is on nvme", False),
    ("warn", {32: "idle"}, {}, {}, "can be owned", True),
    ("warn", {32: "owned"}, {"04.0": "vfio-pci"}, {},
     "cannot be owned: it has an owner", False),
    # The kernel knows better than a list of drivers.
    ("warn", {32: "idle"}, {"04.1": "leaves-it-to-others"}, {}, "can be owned",
     True),
    ("warn", {32: "host"}, {"04.1": "vfio-pci"}, {},
     "cannot be owned: a driver of the host uses it", False),
    ("warn", {32: "host"}, {"04.1": "nvme"}, {},
     "cannot be owned: 0000:00:04.1 is on nvme", False),
    ("warn", {32: "idle", 40: "host"}, {"05.0": "nvme"},
     {32: "40 switch 0000:00:03.0 0000:00:05.0"},
     f"can be owned; the log will say: 0000:00:05.0 (nvme) can be reached {PAST}",
     True),
    ("refuse", {32: "idle", 40: "host"}, {"05.0": "nvme"},
     {32: "40 switch 0000:00:03.0 0000:00:05.0"},
     f"cannot be owned: 0000:00:05.0 (nvme) can be reached {PAST}", False),
    ("refuse", {32: "idle", 40: "idle"}, {},
     {32: "40 switch 0000:00:03.0 0000:00:05.0"}, "can be owned", True),
    ("refuse", {32: "idle", 40: "idle"}, {"05.0": "enabled"},
     {32: "40 switch 0000:00:03.0 0000:00:05.0"},
     f"cannot be owned: 0000:00:05.0 (cannot be switched off) can be reached {PAST}",
     False),
    ("refuse", {32: "idle", 40: "owned"}, {},
     {32: "40 switch 0000:00:03.0 0000:00:05.0"},
     f"cannot be owned: 0000:00:05.0 (another owner) can be reached {PAST}",
     False),
    # What is tied late is refused by either, also by way of others.
    ("warn", {32: "idle", 40: "idle", 48: "host"}, {"06.0": "nvme"},
     {32: "40 late 0000:00:04.0 0000:00:05.0",
      40: "48 late 0000:00:05.0 0000:00:06.0"},
     "cannot be owned: 0000:00:06.0 (nvme) can be reached past 0000:00:05.0: "
     "tied late", False),
    ("warn", {32: "reached 40", 40: "owned"}, {},
     {40: "32 switch 0000:00:03.0 0000:00:04.1"},
     "can be owned if group 40 was not given away under refuse; the log will say: "
     f"group 40 of another owner reaches 0000:00:04.1 {PAST}", None),
    ("refuse", {32: "reached 40", 40: "owned"}, {},
     {40: "32 switch 0000:00:03.0 0000:00:04.1"},
     f"cannot be owned: group 40 of another owner reaches 0000:00:04.1 {PAST}",
     False),
    ("warn", {32: "reached 40 48", 40: "owned", 48: "owned"}, {},
     {40: "32 late 0000:00:05.0 0000:00:04.1"},
     "cannot be owned: group 40 of another owner reaches 0000:00:04.1 past "
     "0000:00:05.0: tied late", False),
    ("warn", {32: "idle"}, {}, {32: "40 switch 0000:00:03.0 0000:00:05.0\n..."},
     "can be owned as far as one page of its reach says", None),
    ("refuse", {32: "idle"}, {}, {32: "- switch 0000:00:03.0 0000:00:07.0"},
     "cannot be owned: 0000:00:07.0 (ahci) can be reached "
     f"{PAST}", False),
)


def what_is_in_the_way(policy, states, drivers, reach, line, ownable):
    with Tree() as tree:
        for name, number in (("04.0", 32), ("04.1", 32), ("05.0", 40),
                             ("06.0", 48)):
            driver = drivers.get(name)
            enabled = driver == "enabled"
            tree.device(f"0000:00:{name}", number, enable=str(int(enabled)),
                        driver=None if enabled else driver)
        tree.device("0000:00:07.0", driver="ahci")
        port = tree.device("0000:00:03.0", 24, driver="pcieport",
                           **{"class": "0x060400"})
        (port / "config").write_bytes(bytes(4096))
        if policy:
            (tree.top / "module/iommu/parameters").mkdir(parents=True)
            (tree.top / "module/iommu/parameters/reach").write_text(policy + "\n")
        for number in (24, 32, 40, 48):
            if states:
                (tree.group(number) / "state").write_text(
                    states.get(number, "idle") + "\n")
            if policy:
                (tree.group(number) / "reach").write_text(
                    reach.get(number, "") + "\n")
        group, = tree.json("32")["groups"]
        first = tree.said("32").split("|--")[0]
    assert group["ownable"] == ownable, group
    assert " ".join(first.split()) == f"Group 32: {line}", first


def what_firmware_or_others_have():
    """Nodes that others have open, and memory that is to be where it is."""
    group, device = "/dev/vfio/32", "/dev/vfio/devices/vfio0"
    for state, node, reserved, obstacles in (
            ("idle", group, "", [OPEN]), ("idle", f"{group}0", "", []),
            # Who has it open owns it, or is not in the way.
            ("owned", group, "", ["it has an owner"]), ("idle", device, "", []),
            (None, device, "", [OPEN]), (None, group, "", [OPEN]),
            ("idle", "/dev/null", "direct-relaxable", []),
            ("idle", "/dev/null", "msi", []),
            ("idle", "/dev/null", "direct", [ONE_TO_ONE]),
            ("idle", group, "direct", [OPEN, ONE_TO_ONE])):
        with Tree() as tree:
            card = tree.device("0000:00:04.0", 32, driver="vfio-pci")
            (card / "vfio-dev/vfio0/dev").mkdir(parents=True)
            tree.link("class/vfio/32", card)
            tree.link("proc/77/fd/3", node)
            (tree.group(32) / "reserved_regions").write_text(
                "0x00000000fee00000 0x00000000feefffff msi\n" + (
                    f"0x00000000feffc000 0x00000000feffcfff {reserved}\n"
                    if reserved else ""))
            if state:
                (tree.group(32) / "state").write_text(f"{state}\n")
            found, = tree.json(*proc(tree))["groups"]
        assert found["obstacles"] == obstacles, (state, node, reserved, found)
        assert found["ownable"] == (not obstacles), found


def faults_of_ports():
    """As the registers have them, in the kernel's words."""
    def config(capability, control, vendor=0x8086):
        space = bytearray(4096)
        space[0:2] = vendor.to_bytes(2, "little")
        space[0x100:0x108] = bytes.fromhex("0100 0120 0000 0000")
        space[0x200:0x208] = bytes.fromhex("0d00 0100") + \
            capability.to_bytes(2, "little") + control.to_bytes(2, "little")
        return bytes(space)

    for space, fault in ((bytes(4096), "no ACS"), (bytes(256), "no ACS"),
                         (b"\xff" * 4096, "does not answer"),
                         (config(0x1f, 0), "ACS off: RR CR UF"),
                         (config(0x1c, 0x14), "ACS off: CR"),
                         (config(0x5c, 0x5c), "DT on"),
                         (config(0x7c, 0x64), "ACS off: CR UF, DT on, EC on"),
                         (config(0x1c, 0x1c), None),
                         (bytes(64), None)):
        with Tree() as tree:
            tree.device("0000:00:05.0", 40)
            (tree.device("0000:00:04.0", 32) / "config").write_bytes(space)
            (tree.group(40) / "reach").write_text(
                "32 switch 0000:00:04.0 0000:00:04.0\n")
            group, = tree.json("40")["groups"]
        assert group["reach"][0]["fault"] == fault, (fault, group)


def proc(tree, **files):
    """Where lsiommu finds what else it reads, with these files."""
    place = tree.top / "proc"
    for name, text in files.items():
        path = place / name.replace("_", "/", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    place.mkdir(exist_ok=True)
    return "--proc", place


def without_a_group():
    """Each device says why, and those with the same reason are together."""
    setup = "firmware describes no IOMMU: "
    none = "firmware describes an IOMMU ({}), but none is in use,"
    unbound = f"it {UNBOUND}" if guest.BY_DRIVER else UNBOUND
    for cpu, cmdline, table, line in (
            ("vendor_id\t: GenuineIntel\nflags\t: fpu\n", "quiet", None,
             f"{setup}look for VT-d in its setup"),
            ("vendor_id\t: AuthenticAMD\nflags\t: fpu\n", "quiet", None,
             f"{setup}look for IOMMU or AMD-Vi in its setup"),
            ("vendor_id\t: AuthenticAMD\nflags\t: hypervisor\n", "", None,
             f"{setup}this virtual machine has none"),
            ("", "", None, f"{setup}look for an IOMMU or SMMU in its setup"),
            ("", "quiet amd_iommu=off\n", "IVRS",
             "the IOMMU is off by amd_iommu=off"),
            ("", "iommu=off\n", "DMAR", "the IOMMU is off by iommu=off"),
            # The option of what is not there does nothing.
            ("", "amd_iommu=off iommu=off\n", "DMAR",
             "the IOMMU is off by iommu=off"),
            # In the kernel's order
            ("", "iommu=off intel_iommu=off\n", "DMAR",
             "the IOMMU is off by intel_iommu=off"),
            ("", "iommu=pt,off quiet\n", "DMAR", "the IOMMU is off by iommu=off"),
            ("", "intel_iommu=sm_on,off", "DMAR",
             "the IOMMU is off by intel_iommu=off"),
            ("", "quiet amd_iommu=off,fullflush iommu=pt\n", "IVRS",
             "the IOMMU is off by amd_iommu=off"),
            ("", "xiommu=off iommu=offset,xoff amd_iommu=o,ff iommu.x=off off "
             "iommu=pt pci=noacpi\n", "IVRS", f"{none.format('IVRS')} see the log"),
            ("", "amd_iommu=off iommu=off\n", None,
             f"{setup}look for an IOMMU or SMMU in its setup"),
            ("", "acpi=off\n", None, "the IOMMU is off by acpi=off"),
            ("", "intel_iommu=on\n", "DMAR", f"{none.format('DMAR')} see the log or "
             "boot with intel_iommu=on"),
            ("", "", "IVRS", f"{none.format('IVRS')} see the log")):
        with Tree() as tree:
            (tree.top / "kernel/iommu_groups").mkdir()
            tree.device("0000:00:04.0")
            if table:
                tree.link(f"firmware/acpi/tables/{table}", "/dev/null")
            said = tree.said(*proc(tree, cpuinfo=cpu, cmdline=cmdline))
        assert f"\nNo group: {line}\n`-- 0000:00:04.0 " in \
            said.replace("\n    ", " "), said
    for unit, driver, line in (
            ("dmar0", "e1000e", "no IOMMU covers it"),
            ("ivhd0", None, "no IOMMU covers it"),
            ("smmu3.0x09050000", None, unbound),
            ("virtio0", "e1000e", "no IOMMU covers it, or its IOMMU's driver "
             "refused it, see the log" if guest.BY_DRIVER else unbound)):
        with Tree() as tree:
            tree.device("0000:00:04.0", 32)
            tree.device("0000:00:05.0", driver=driver)
            device = tree.device("0000:00:01.0", driver="virtio-pci")
            tree.link(f"class/iommu/{unit}", device / "iommu")
            (device / "iommu").mkdir()
            said = [line for line in tree.said().splitlines()
                    if line.startswith("No group")]
            whys = [one["why"] for one in tree.json()["ungrouped"]]
        assert said == ["No group: it is an IOMMU", f"No group: {line}"], said
        assert whys == ["it is an IOMMU", line], whys


def what_the_host_has():
    """Network devices and disks, what they are used for, and cards."""
    with Tree() as tree:
        for number, parts in enumerate((
                ("net/eth0",), ("net/eth1",), ("ata1/block/sda", ),
                ("nvme/nvme0/nvme0n1",), ("drm/card0", "drm/card0/card0-DP-1"))):
            device = tree.device(f"0000:00:0{number}.0", number,
                                 boot_vga="1" if "drm" in parts[0] else "0")
            for part in parts:
                (device / part).mkdir(parents=True)
                name = part.split("/")[-1]
                kind = {"e": "net", "c": "drm"}.get(name[0], "block")
                tree.link(f"class/{kind}/{name}", device / part)
        disk = tree.top / "devices/pci/0000:00:02.0/ata1/block/sda"
        for part in (1, 2):
            (disk / f"sda{part}").mkdir()
            (disk / f"sda{part}/partition").write_text(f"{part}\n")
            tree.link(f"class/block/sda{part}", disk / f"sda{part}")
            tree.link(f"dev/block/8:{part}", disk / f"sda{part}")
        mapped = tree.top / "devices/virtual/block/dm-0"
        (mapped / "slaves").mkdir(parents=True)
        (mapped / "slaves/sda2").symlink_to(disk / "sda2")
        (mapped / "slaves/nvme0n1").symlink_to(tree.top / "class/block/nvme0n1")
        tree.link("class/block/dm-0", mapped)
        tree.link("dev/block/253:0", mapped)
        bridge = tree.top / "devices/virtual/net/br0"
        bridge.mkdir(parents=True)
        (bridge / "lower_eth1").symlink_to(tree.top / "class/net/eth1")
        tree.link("class/net/br0", bridge)
        where = proc(
            tree, net_route="Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\t"
            "Metric\tMask\nbr0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n"
            "eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n",
            net_ipv6_route=f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 31}1 00000400 "
            "00000001 00000000 00000003      br0\n",
            self_mountinfo="24 1 253:0 / / rw shared:1 - ext4 /dev/dm-0 rw\n"
            "25 24 8:1 / /boot rw shared:2 - ext4 /dev/sda1 rw\n"
            "26 24 0:5 / /sys rw - sysfs sysfs rw\n26 24 8:1 / /boot rw - x y rw\n")
        groups = tree.json(*where)["groups"]
        lines = [line for line in tree.said(*where).splitlines()
                 if " holds " in line]
        alone = tree.json()["groups"]
    held = held_by(groups)
    assert [sorted(one) for one in held] == [
        [("eth0", [])], [("br0", ["the default route"]), ("eth1", [])],
        [("dm-0", ["/"]), ("sda", []), ("sda1", ["/boot"])],
        [("dm-0", ["/"]), ("nvme0n1", [])], [("card0", [])]], held
    assert [group["devices"][0]["console"] for group in groups] == \
        [False] * 4 + [True], groups
    assert lines[1:] == [
        "    holds eth1, br0 (the default route)",
        "    holds sda, dm-0 (/), sda1 (/boot)", "    holds nvme0n1, dm-0 (/)",
        "    holds card0, the console"], lines
    assert not any(one["uses"] for group in alone
                   for one in group["devices"][0]["holds"]), alone


def held_by(groups):
    """Of each group's first device."""
    return [[(one["name"], one["uses"]) for one in group["devices"][0]["holds"]]
            for group in groups]


def disks_of_several():
    """All disks of a btrfs, and an NVMe namespace that several controllers have."""
    with Tree() as tree:
        for number, name in enumerate(("sda", "sdb", "sdc")):
            disk = tree.device(f"0000:00:0{number}.0", number, driver="ahci") / name
            (disk / f"{name}1").mkdir(parents=True)
            (disk / f"{name}1/partition").write_text("1\n")
            for part, where in ((name, disk), (f"{name}1", disk / f"{name}1")):
                tree.link(f"class/block/{part}", where)
        for disk, which in (("sda1", "root"), ("sdb1", "root"), ("sdc1", "other")):
            tree.link(f"fs/btrfs/{which}/devices/{disk}",
                      tree.top / "class/block" / disk)
        (tree.top / "fs/btrfs/features").mkdir()
        # The mount's own number is none of a disk, for which its node is asked.
        tree.link("dev/block/8:17", tree.top / "class/block/sdb1")
        where = proc(tree, self_mountinfo="24 1 8:17 /@ / rw - btrfs /dev/sdb1 rw\n")
        head = tree.top / "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"
        head.mkdir(parents=True)
        for number in (0, 1):
            card = tree.device(f"0000:00:0{number + 3}.0", number + 3, driver="nvme")
            path = card / f"nvme/nvme{number}/nvme0c{number}n1"
            path.mkdir(parents=True)
            (path / "hidden").write_text("1\n")
            tree.link(f"class/block/nvme0c{number}n1", path)
            (head.parent / f"nvme{number}").symlink_to(path.parent)
        tree.link("class/block/nvme0n1", head)
        groups = tree.json(*where)["groups"]
        for device in "sda", "sdb":
            tree.fails(" has the root filesystem;", "--handover", device, *where)
        for device in "sdc", "00:03.0":
            said = tree.said("--handover", device, *where)
    assert held_by(groups) == [
        [("sda", []), ("sda1", ["/"])], [("sdb", []), ("sdb1", ["/"])], [("sdc", [])],
        [("nvme0n1", [])], [("nvme0n1", [])]], groups
    assert "loses nvme0n1" in said, said


def section(said, title):
    """The lines below a title, without what is said behind a command."""
    block, = [block for block in said.split("\n\n") if block.startswith(title)]
    return [re.sub(r"  # .*", "", line.strip())
            for line in block.splitlines()[1:] if not line.startswith("      # ")]


def override(device, driver):
    """What gives a device to vfio-pci, and what gives it back."""
    where = f"/sys/bus/pci/devices/{device}/driver"
    away = [f"echo vfio-pci > {where}_override"]
    if driver:
        away.append(f"echo {device} > {where}/unbind")
    probe = f"echo {device} > /sys/bus/pci/drivers_probe"
    return [*away, probe], [f"echo > {where}_override",
                            f"echo {device} > {where}/unbind", probe]


def handed_over():
    """Commands in order with what each costs, nodes, lines, and the way back."""
    with Tree() as tree:
        tree.device("0000:00:1c.0", 768, driver="pcieport",
                    **{"class": "0x060400"})
        card = tree.device("0000:03:00.0", 768, driver="e1000e",
                           sriov_numvfs="2")
        (card / "net/eth0").mkdir(parents=True)
        tree.link("class/net/eth0", card / "net/eth0")
        tree.device("0000:03:00.1", 768, driver="ahci")
        tree.device("0000:03:00.2", 768)
        tree.device("0000:03:00.3", 768, driver="vfio-pci")
        tree.device("AMDI0020:00", 768, bus="platform", driver="dw-apb-uart")
        where = proc(tree, net_route="eth0 00000000 0 3 0 0 0 00000000\n")
        asked = ("--handover", "03:00.0", *where)
        old = os.environ["PATH"]
        try:
            os.environ["PATH"] = "/nowhere"
            said = tree.said(*asked)
            others = tree.said("--handover", "03:00.2", "03:00.1", *where)
            with tempfile.TemporaryDirectory() as place:
                os.environ["PATH"] = place
                program = pathlib.Path(place, "driverctl")
                program.write_text("")
                program.chmod(0o755)
                by_driverctl = tree.said(*asked)
        finally:
            os.environ["PATH"] = old
        (tree.top / "bus/pci/drivers/vfio-pci").mkdir(parents=True)
        there = tree.said(*asked)
        free = tree.said("--handover", "03:00.3", *where)
        tree.device("0000:00:1c.1")
        tree.fails("0000:00:1c.1 has no group: ", "--handover", "00:1c.1")
        tree.fails("which device?", "--handover")
        # VFIO has it without an IOMMU
        tree.device("0000:04:00.0", 1024, driver="vfio-pci")
        tree.group(1024, name="vfio-noiommu")
        alone = tree.said("--handover", "04:00.0", *where)
    card, disk = (override(f"0000:03:00.{function}", driver)
                  for function, driver in ((0, "e1000e"), (1, "ahci")))
    uart = "AMDI0020:00"
    away = ["modprobe vfio-pci", *card[0], *disk[0],
            f"echo {uart} > /sys/bus/platform/devices/{uart}/driver/unbind"]
    assert section(said, "To give it away") == away, said
    assert section(there, "To give it away") == away[1:], there
    assert section(said, "To take it back") == [
        *card[1], *disk[1], f"echo {uart} > /sys/bus/platform/drivers_probe"]
    for text in said, others, by_driverctl, free, alone:
        assert all(len(line) <= COLUMNS for line in text.splitlines()), text
    said = said.replace("\n      # ", " ")
    for line in ("override  # loses eth0 (the default route), loses its 2 Virtual "
                 "Functions\n", "override  # in the same group\n",
                 "unbind  # in the same group\n", "\n  /dev/vfio/768\n",
                 "\n  -device vfio-pci,host=0000:03:00.0\n",
                 "<address domain='0x0000' bus='0x03' slot='0x00' function='0x0'/>"):
        assert line in said, f"no '{line}' in: {said}"
    assert section(others, "To give it away") == [
        *away[:-1], *override("0000:03:00.2", None)[0], away[-1]], others
    assert section(by_driverctl, "To give it away")[1:3] == [
        f"driverctl set-override 0000:03:00.{function} vfio-pci"
        for function in (0, 1)], by_driverctl
    assert section(by_driverctl, "To take it back")[:2] == [
        f"driverctl unset-override 0000:03:00.{function}"
        for function in (0, 1)], by_driverctl
    # What is asked for is there, and the rest of its group is still in the way.
    assert "0000:03:00.3 vfio-pci" not in section(free, "To give it away"), free
    assert section(alone, "Its node, for root and not for QEMU or libvirt") == \
        ["/dev/vfio/noiommu-1024"] and "host=" not in alone, alone


def not_handed_over():
    """What would take the root disk or the console's only card, by no accident."""
    with Tree() as tree:
        disk = tree.device("0000:00:02.0", 16, driver="ahci")
        (disk / "block/sda").mkdir(parents=True)
        tree.link("class/block/sda", disk / "block/sda")
        tree.link("dev/block/8:0", disk / "block/sda")
        tree.device("0000:00:02.1", 16)
        card = {"class": "0x030000"}
        tree.device("0000:00:03.0", 24, driver="i915", boot_vga="1", **card)
        where = proc(tree, self_mountinfo="24 1 8:0 / / rw - ext4 /dev/sda rw\n")
        for device, why in (("00:02.0", "has the root filesystem"),
                            ("sda", "has the root filesystem"),
                            ("00:02.1", "has the root filesystem"),
                            ("24", "is the only card of the console")):
            tree.fails(f" {why}; --force ", "--handover", device, *where)
            assert section(tree.said("--handover", "--force", device, *where),
                           "To give it away")
        assert tree.said("--handover", "00:02.0")
        second = tree.device("0000:00:04.0", 32, **card)
        tree.fails(" is the only card ", "--handover", "00:03.0", *where)
        (second / "driver").symlink_to("../drivers/amdgpu")
        assert tree.said("--handover", "00:03.0", *where)
        tree.fails("--force: only with --handover", "--force", "00:03.0")


def handover_in_guest(driverctl):
    """The commands, run as they are, do it, and those for the way back undo it."""
    kind = guest.Debian if driverctl else guest.Guest
    more = ["virtio-rng-pci,bus=dmi0,addr=3.0", "virtio-net-pci,bus=dmi0,addr=4.0"]
    with kind("demo", "intel", kernel=TESTED, log="handover", more=more) as running:
        running.sh("ip link set eth0 up; ip addr add 10.0.0.1/24 dev eth0; "
                   "ip route add default via 10.0.0.2")
        if driverctl:
            running.sh("/lib/systemd/systemd-udevd --daemon; udevadm settle")
        before = running.links("driver")
        said = running.sh("lsiommu --handover eth0")
        away = section(said, "To give it away")
        assert any(("driverctl" in line) == driverctl for line in away), said
        assert "# loses eth0 (the default route)\n" in \
            said.replace("\n      # ", " "), said
        held, = json.loads(running.sh("lsiommu --json eth0"))["groups"]
        assert not held["ownable"], held
        running.sh("; ".join(away))
        after = running.links("driver")
        assert {device for device in before if before[device] != after[device]} \
            == {"07:03.0", "07:04.0"}, after
        group, = json.loads(running.sh("lsiommu --json 07:04.0"))["groups"]
        assert group["ownable"] and group["nodes"] == ["/dev/vfio/240"], group
        assert claims(running, "group 240") == ["0"]
        assert running.run("ls " + " ".join(section(said, "Its nodes")[:1]))[0] == 0
        running.sh("; ".join(section(said, "To take it back")))
        assert running.links("driver") == before, running.links("driver")
        assert "eth0" in running.sh("ls /sys/class/net")


def without_iommu():
    """On a machine without one VFIO gives groups to what it is forced to take."""
    with guest.Guest("sriov", "none", kernel=TESTED, log="noiommu") as running:
        for device, number in ("01:00.0", 256), ("01:00.2", 258):
            assert running.sh(f"lsiommu {device}").startswith(
                f"Group {number} (vfio-noiommu): can be owned, without an IOMMU\n")
            node, = section(running.sh(f"lsiommu --handover {device}"), "Its node")
            running.sh(f"[ -c {node} ] && lsiommu --json {node} | grep 0000:{device}")
        assert "No group: firmware describes no IOMMU" in running.sh("lsiommu 00:03.0")


def names_in_guest():
    """Each name that a device has here gives its group and no other."""
    with tempfile.NamedTemporaryFile() as image:
        image.truncate(1 << 20)
        with guest.Guest("root-ports", "intel", kernel=TESTED, log="names",
                         more=["e1000e,bus=pcie.0,addr=8.0",
                               "virtio-net-pci,bus=pcie.0,addr=9.0",
                               "virtio-blk-pci,drive=disk,bus=pcie.0,addr=a.0"],
                         drives=[f"file={image.name},id=disk"]) as running:
            bind(running, "00:08.0")
            node = vfio_name(running, "00:08.0")
            for device, names in {
                    "00:08.0": f"0:8 00:08.0 0000:00:8.0 64 /dev/vfio/64 {node} "
                    f"8086:10d3 /dev/vfio/devices/{node} "
                    "/sys/bus/pci/devices/0000:00:08.0 "
                    "/sys/kernel/iommu_groups/64",
                    "00:09.0": "eth0 /sys/class/net/eth0 1af4:1000",
                    "00:0a.0": "vda /dev/vda /sys/block/vda /sys/dev/block/254:0 "
                    "1af4:1001"}.items():
                number = running.groups()[device]
                for name in names.split():
                    status, said = running.run(f"lsiommu --json {name}")
                    found = [] if status else json.loads(said)["groups"]
                    assert [one["group"] for one in found] == [number], \
                        f"{name}: {said}"


def why_in_guest(name, iommu, cmdline, device, why, besides=()):
    """Why a device of this machine has no group, under these options."""
    with guest.Guest(name, iommu, cmdline, kernel=TESTED, log="why",
                     bind=False, besides=besides) as running:
        said = running.sh(f"lsiommu {device}").splitlines()
        assert f"No group: {why}" in said, said
        one, = json.loads(running.sh(f"lsiommu --json {device}"))["ungrouped"]
        assert one["why"] == why, one
        status, said = running.run(f"lsiommu --handover {device}")
        assert status == 1 and f"has no group: {why}" in said, said


# What there is in a guest of reasons for having no group.
WHY = (
    ("switch", "none", "", "03:00.0",
     "firmware describes no IOMMU: this virtual machine has none"),
    *(("switch", "none", "", "03:00.0", f"firmware describes no IOMMU: {setting}",
       ["-cpu", f"qemu64,vendor={vendor},-hypervisor"]) for vendor, setting in (
           ("GenuineIntel", "look for VT-d in its setup"),
           ("AuthenticAMD", "look for IOMMU or AMD-Vi in its setup"))),
    ("switch", "intel", "intel_iommu=off", "03:00.0",
     "the IOMMU is off by intel_iommu=off"),
    ("switch", "amd", "amd_iommu=off", "03:00.0",
     "the IOMMU is off by amd_iommu=off"),
    ("switch", "amd", "", "00:01.0", "it is an IOMMU"),
    ("switch", "virtio", "", "00:01.0", "it is an IOMMU"),
    *([("switch", "virtio", "", "03:00.0", f"it {UNBOUND}")] if guest.BY_DRIVER else []),
    ("no-unit", "intel", "", "00:05.0", "no IOMMU covers it"),
)


def root_in_guest():
    """A root filesystem on a disk is seen, and a bridge that has the route."""
    disk = ["virtio-blk-pci,drive=disk,bus=dmi0,addr=3.0"]
    with tempfile.NamedTemporaryFile() as image:
        image.truncate(8 << 20)
        with guest.Guest("demo", "intel", kernel=TESTED, log="handover-root",
                         more=disk, drives=[f"file={image.name},id=disk"]) \
                as running:
            running.sh("mke2fs /dev/vda; mount -t ext2 /dev/vda /tmp; cd /tmp; "
                       "mkdir proc sys dev; mount --bind /proc proc; "
                       "mount --bind /sys sys; mount --bind /dev dev; "
                       "cp /bin/lsiommu .")
            said = running.sh("chroot /tmp /lsiommu vda")
            assert "holds vda (/)\n" in said, said
            for name in ("vda", "/dev/vda", "07:03.0", "240"):
                status, said = running.run(f"chroot /tmp /lsiommu --handover {name}")
                assert status == 1 and "has the root filesystem" in said, said
            assert "To give it away" in running.sh(
                "chroot /tmp /lsiommu --handover --force vda")


def console_in_guest():
    """The card that firmware wrote to, is not given away by accident.

    But for another one that the host goes on with, which VFIO's is not.
    """
    other = "00:09.0"
    with guest.Guest("demo", "intel", kernel=TESTED, log="handover-console",
                     more=["VGA,bus=pcie.0,addr=8.0",
                           "virtio-gpu-pci,bus=pcie.0,addr=9.0"]) as running:
        assert "holds the console\n" in running.sh("lsiommu 00:08.0")
        assert running.links("driver")[other] == "virtio-pci"
        running.sh("lsiommu --handover 00:08.0")
        bind(running, other)
        status, said = running.run("lsiommu --handover 00:08.0")
        assert status == 1 and "is the only card of the console" in said, said
        running.sh("lsiommu --handover --force 00:08.0")
        running.sh("lsiommu --handover 00:09.0")


def by_path():
    """Whatever the numbers of the buses, and for udev with other characters."""
    with Tree() as tree:
        root = "pci0000:00"
        tree.device("0000:00:05.0", 40, below=root, driver="pcieport",
                    **{"class": "0x060400"})
        card = tree.device("0000:03:00.0", 768, below=f"{root}/0000:00:05.0",
                           vfio=True)
        (card / "vfio-dev/vfio7").mkdir()
        tree.link("class/vfio-dev/vfio7", card / "vfio-dev/vfio7")
        tree.device("0000:03:00.1", 768, below=f"{root}/0000:00:05.0")
        tree.device("0000:02:00.0", 768, below=f"{root}/0000:00:05.0",
                    **{"class": "0x060400"})
        tree.device("0001:00:00.0", below="pci0001:00")
        for arguments, said in (
                ((), "00:05.0  0000:00:05.0\n00:05.0/00.0  0000:02:00.0\n"
                 "00:05.0/00.0  0000:03:00.0\n00:05.0/00.1  0000:03:00.1\n"
                 "0001:00:00.0  0001:00:00.0\n"),
                (("03:00.1",), "00:05.0/00.1  0000:03:00.1\n"),
                (("vfio7", "1:0:0.0"), "00:05.0/00.0  0000:03:00.0\n"
                 "0001:00:00.0  0001:00:00.0\n")):
            assert tree.said("--path", *arguments) == said, arguments
        for node, links in (
                ("768", "vfio/by-path/00:05.0-00.0-group "
                 "vfio/by-path/00:05.0-00.1-group"),
                ("noiommu-768", "vfio/by-path/00:05.0-00.0-group "
                 "vfio/by-path/00:05.0-00.1-group"),
                ("vfio7", "vfio/by-path/00:05.0-00.0-device"), ("40", "")):
            said = tree.said("--udev", node)
            assert said.replace("= ", "=") == f"VFIO_LINKS={links}\n", said
        tree.fails("which device?", "--udev")


def links_by_path():
    """Through udev, to the same device after its bus has got another number."""
    found = {}
    for more in (), ("pcie-root-port,id=new,bus=pcie.0,addr=2.0,chassis=9,slot=9",
                     "e1000e,bus=new,addr=0.0"):
        with guest.Debian("demo", "intel", kernel=TESTED, log="by-path",
                          more=more) as running:
            # As docs/stored-numbers.md has it
            running.sh("echo 'SUBSYSTEM==\"vfio\", ENV{VFIO_LINKS}==\"*00:05.0-00.0-"
                       "01.0-00.0-group*\", MODE=\"0640\"' > "
                       "/lib/udev/rules.d/61-mine.rules")
            running.sh("/lib/systemd/systemd-udevd --daemon; udevadm settle")
            path = "00:05.0/00.0/01.0/00.0"
            device = running.sh(f"lsiommu --path {path}").split()[1]
            bind(running, device[5:])
            running.sh("udevadm settle")
            group, = json.loads(running.sh(f"lsiommu --json {path}"))["groups"]
            links = dict(line.split()[-3::2] for line in running.sh(
                "ls -l /dev/vfio/by-path").splitlines() if "->" in line)
            member, = [one for one in group["devices"] if one["path"] == path]
            name = path.replace("/", "-")
            assert links == {
                f"{name}-group": f"../{group['group']}",
                f"{name}-device": "../" + member["nodes"][0].removeprefix(
                    "/dev/vfio/")}, links
            assert running.sh(f"lsiommu --path /dev/vfio/by-path/{name}-device") \
                == f"{path}  {device}\n"
            assert f"{path}  {device}\n" in running.sh(
                f"lsiommu --path /dev/vfio/by-path/{name}-group")
            mode = running.sh(f"stat -c %a /dev/vfio/{group['group']}")
            assert mode == "640\n", mode
            found[device] = group["group"]
    # It has moved, or nothing was tried.
    assert len(found) == len(set(found.values())) == 2, found


def machine_of(tree, groups, shift=0, **drivers):
    """Two functions behind a port, whose bus can have another number, and two
    others; each in the group that is given, None for none."""
    root = "pci0000:00"
    port = {"class": "0x060400", "below": root, "driver": "pcieport"}
    places = {"port": ("0000:00:05.0", port),
              "one": (f"0000:{3 + shift:02x}:00.0",
                      {"below": f"{root}/0000:00:05.0"}),
              "two": (f"0000:{3 + shift:02x}:00.1",
                      {"below": f"{root}/0000:00:05.0"}),
              "disk": ("0000:00:06.0", {"below": root}),
              "uart": ("AMDI0020:00", {"bus": "platform"})}
    for name, group in groups.items():
        device, files = places[name]
        tree.device(device, group, **{**files, "driver": drivers.get(
            name, files.get("driver"))})


def changes(before, after, shift, drivers=()):
    with tempfile.NamedTemporaryFile("w") as file:
        with Tree() as tree:
            machine_of(tree, before)
            file.write(tree.said("--json"))
            file.flush()
            assert tree.said("--since", file.name) == "", "same, yet changed"
        with Tree() as tree:
            machine_of(tree, after, shift, **dict(drivers))
            return [" ".join(line.split()) for line in
                    tree.said(f"--since={file.name}").splitlines()]


def large_picture():
    """A hundred devices: no more lines than twice that, and not all side by side."""
    with Tree() as tree:
        root, port = "pci0000:00", {"class": "0x060400"}
        tree.device("0000:00:03.0", 24, below=root, **port)
        up = f"{root}/0000:00:03.0"
        tree.device("0000:01:00.0", 256, below=up, **port)
        for slot in range(32):
            down, end = f"0000:02:{slot:02x}.0", f"0000:{slot + 3:02x}:00.0"
            group = 2 << 8 | slot << 3
            tree.device(down, group, below=f"{up}/0000:01:00.0", **port)
            tree.device(end, group, below=f"{up}/0000:01:00.0/{down}",
                        iommu_group_reason=f"path {down}")
            (tree.group(group) / "reach").write_text("".join(
                f"{2 << 8 | other << 3} switch {down} 0000:{other + 3:02x}:00.0\n"
                for other in range(32) if other != slot))
        for rid in (*range(4 << 3, 28 << 3, 8), *range(4 << 3 | 1, 14 << 3, 8)):
            tree.device(f"0000:00:{rid >> 3:02x}.{rid & 7}", rid, below=root)
        said = tree.json()
        text = tree.said("--dot")
        firsts = {group["group"]: tree.said(str(group["group"])).split("\n")[0]
                  for group in said["groups"]}
    as_picture(said, text, firsts)
    _, nodes, edges = graph(text)
    assert len(boxes(nodes)[0]) == 100 and len(edges) < 200, len(edges)
    below = [source for source, _, looks in edges if looks["class"] == "below"]
    assert max(map(below.count, below)) <= 9, "too many side by side"


def since_before():
    """What moved, came, went and is refused; a device is known by its path."""
    stock = {"port": 1, "one": 2, "two": 2, "disk": 3, "uart": 4}
    ours = {"port": 40, "one": 768, "two": 768, "disk": 48, "uart": 2147418112}
    moved = ["Other numbers:", "1 -> 40 0000:00:05.0", "3 -> 48 0000:00:06.0",
             "2 -> 768 0000:03:00.0", "4 -> 2147418112 AMDI0020:00"]
    assert changes(stock, ours, 0) == moved
    lines = changes(stock, {**ours, "one": 1024, "two": 1024}, 1)
    assert lines == [
        *moved[:3], "2 -> 1024 0000:04:00.0 (was 0000:03:00.0)", moved[4]], lines
    why = "firmware describes no IOMMU: look for an IOMMU or SMMU in its setup"
    for after, lines in (
            ({**stock, "two": 5}, [
                "Other members:", "group 2: 0000:03:00.1 went out, is in 5",
                "group 5: 0000:03:00.1 came in, was in 2"]),
            ({**stock, "disk": 2}, [
                "Other members:", "group 2: 0000:00:06.0 came in, was in 3"]),
            ({**stock, "disk": None}, [
                "Without a group:", f"0000:00:06.0 was in 3: {why}"]),
            ({**stock, "two": None}, [
                "Other members:", "group 2: 0000:03:00.1 went out, has no group",
                "Without a group:", f"0000:03:00.1 was in 2: {why}"]),
            ({"port": 1, "one": 2, "disk": 3}, [
                "Other members:", "group 2: 0000:03:00.1 is gone",
                "Groups that are gone:", "4 AMDI0020:00"])):
        found = changes(stock, after, 0)
        assert found == lines, found
    found = changes({"port": 1, "one": 2}, {"port": 1, "one": 2, "two": 2,
                                           "disk": 3}, 0, [("disk", "ahci")])
    assert found == [
        "Other members:", "group 2: 0000:03:00.1 is new",
        "group 3: 0000:00:06.0 is new", "Refused now:",
        "Group 3: cannot be owned: 0000:00:06.0 is on ahci"], found
    found = changes(stock, stock, 0, [("two", "nvme")])
    assert found == ["Refused now:",
                     "Group 2: cannot be owned: 0000:03:00.1 is on nvme"], found


def since_stock(kernel):
    """In guests: from stock's JSON, and to one with a card that moves the buses.

    And with one that a driver of the host takes, in a group of before, and with groups
    that are wider, where the kernel can do that.
    """
    more = ["pcie-root-port,id=new,bus=pcie.0,addr=2.0,chassis=9,slot=9",
            "e1000e,bus=new,addr=0.0", "virtio-rng-pci,bus=dmi0,addr=3.0"]
    wider = kernel != "stock"
    before = boot("demo", "intel", kernel="stock")
    text = json.dumps(json.loads(before.lsiommu["--json"]))
    with guest.Guest("demo", "intel", GROUP_MF if wider else PLAIN, kernel=kernel,
                     log="since", more=more) as running:
        for at in range(0, len(text), 900):
            running.sh(f"echo -n '{text[at:at + 900]}' >> /tmp/before")
        said = running.sh("lsiommu --since /tmp/before").splitlines()
        paths = {path: device for path, device in (
            line.split() for line in running.sh("lsiommu --path").splitlines())}
        groups = running.groups()
    now = {path: groups[device[5:]] for path, device in paths.items()}
    was = {device["path"]: (group["group"], device["device"])
           for group in json.loads(text)["groups"] for device in group["devices"]}
    found = {}
    for line in said:
        moved = re.match(r"  (\d+) -> (\d+)  (\S+)(?: \(was (\S+)\))?$", line)
        if moved:
            found[int(moved[1])] = int(moved[2])
    # A Function 1 is with its Function 0, whose group goes on, and its own is no more.
    came = {f"  group {groups[one]}: 0000:{one} came in, was in {was[path][0]}"
            for one, path in (("00:03.1", "00:03.1"), ("00:04.1", "00:04.1"))
            if wider}
    assert found == {number: now[path] for path, (number, _) in was.items()
                     if number != now[path] and
                     not (wider and path in ("00:03.1", "00:04.1"))} \
        and len(found) > 8, (found, said)
    assert {line for line in said if " came in" in line or " out" in line} == came, said
    card = next(device[5:] for path, device in paths.items() if path == "00:1e.0/03.0")
    for device in "00:02.0", card:
        assert f"  group {groups[device]}: 0000:{device} is new" in said, said
    assert said[-2:] == ["Refused now:", f"  Group {groups[card]}: cannot be owned: "
                         f"0000:{card} is on virtio-pci"], said


SCHEMA_LINE = re.compile(r"^(\w+)\.(\w+) +(\S.*)$", re.MULTILINE)
SCALARS = {"string": str, "number": int, "boolean": bool, "null": type(None)}


def schema():
    """The manual page's, by kind of object: types by key, and if optional."""
    kinds = {}
    text = MAN.read_text().split(".SH JSON")[1].split(".EX")[1].split(".EE")[0]
    for kind, key, types in SCHEMA_LINE.findall(text):
        types, _, optional = types.partition(", ")
        assert optional in ("", "optional"), optional
        kinds.setdefault(kind, {})[key] = types.split(" | "), bool(optional)
    return kinds


def follows_schema(value, kinds, kind="top"):
    """The keys of the kind are there, no others, and of its types."""
    assert isinstance(value, dict), (kind, value)
    assert not value.keys() - kinds[kind].keys(), (kind, value)
    for key, (types, optional) in kinds[kind].items():
        if key not in value:
            assert optional, f"no {kind}.{key} in {value}"
            continue
        assert any(has_type(value[key], one, kinds) for one in types), \
            f"{kind}.{key} is {value[key]!r}, not {types}"


def has_type(value, name, kinds):
    if name.startswith("["):
        return isinstance(value, list) and \
            all(has_type(one, name[1:-1], kinds) for one in value)
    if name in SCALARS:
        return type(value) is SCALARS[name]     # a bool is an int, too
    follows_schema(value, kinds, name)
    return True


def as_schema(name, iommu, cmdline, kernel):
    said = json.loads(boot(name, iommu, cmdline, kernel).lsiommu["--json"])
    follows_schema(said, schema())


def schema_is_used():
    """Every key of it is in some tree, so that a wrong one shows."""
    with Tree() as tree:
        tree.device("0000:00:03.0", driver="ahci")
        device = tree.device("0000:00:04.0", 32,
                             iommu_group_reason="path 0000:00:03.0")
        (device / "net/eth0").mkdir(parents=True)
        tree.link("class/net/eth0", device / "net/eth0")
        (device / "vfio-dev/vfio0/dev").mkdir(parents=True)
        tree.link("class/vfio/32", device)
        (tree.group(32, "name") / "reach").write_text(
            "- late 0000:00:04.0 0000:00:03.0\n")
        (tree.group(32) / "state").write_text("reached 40 48 ...\n")
        said = tree.json()
        follows_schema(said, schema())
    group, = said["groups"]
    assert group["reached_by"] == [40, 48] and group["state"] == "reached"
    assert group["nodes"] == ["/dev/vfio/32"], group
    assert group["devices"][0]["nodes"] == ["/dev/vfio/devices/vfio0"], group
    assert group["devices"][0]["reason"] == {
        "rule": "path", "device": "0000:00:03.0"}, group
    found = {"top": set(said), "group": set(group),
             "device": set(group["devices"][0]) | set(said["ungrouped"][0]),
             "reason": set(group["devices"][0]["reason"]),
             "reach": set(group["reach"][0]),
             "holder": set(group["devices"][0]["holds"][0])}
    assert found == {kind: set(keys) for kind, keys in schema().items()}, found


def reach_as_kernel(iommu):
    """In a guest, where root asks."""
    with guest.Guest("switch", iommu, kernel=TESTED, log="lsiommu-reach") \
            as running:
        group, = json.loads(running.sh("lsiommu --json 03:00.0"))["groups"]
        lines = running.read("/sys/kernel/iommu_groups/512/reach").splitlines()
        assert lines == [" ".join(str(one[key]) for key in
                                  ("group", "rule", "port", "device"))
                         for one in group["reach"]] and lines, group
        assert group["ownable"], group
        assert all(one["fault"] == "no ACS" for one in group["reach"]), group


def in_order():
    """Numbers as numbers, addresses as addresses, PCI first."""
    with Tree() as tree:
        for number in (10, 9, 2147418112, 100):
            tree.device(f"0000:00:{len(str(number)):02x}.0", number)
        for name in ("10000:00:00.0", "0001:00:00.0", "0000:0a:00.0",
                     "0000:00:1f.7", "0000:00:1f.2", "0000:09:00.0"):
            tree.device(name, 100)
        tree.device("AMDI0020:00", 100, bus="platform")
        tree.group("not-a-number")
        groups = tree.json()["groups"]
    assert [group["group"] for group in groups] == [9, 10, 100, 2147418112]
    assert [device["device"] for device in groups[2]["devices"]] == [
        "0000:00:03.0", "0000:00:1f.2", "0000:00:1f.7", "0000:09:00.0",
        "0000:0a:00.0", "0001:00:00.0", "10000:00:00.0", "AMDI0020:00"]


def host_drivers():
    """Each member that is on one is named, and no other."""
    with Tree() as tree:
        for function, (driver, vfio) in enumerate((
                (None, False), ("pcieport", False), ("pci-stub", False),
                ("vfio-pci", False), ("mlx5_vfio_pci", True),
                ("e1000e", False), ("uio_pci_generic", False))):
            tree.device(f"0000:00:04.{function}", 32, driver=driver, vfio=vfio)
        tree.device("AMDI0020:00", 160, bus="platform", driver="dw-apb-uart",
                    iommu_group_reason="driver")
        tree.device("ARMH0011:00", 161, bus="amba", driver="vfio-amba",
                    vfio=True)
        # Its bus leaves groups alone.
        tree.device("context", 162, bus="host1x-context", driver="any")
        tree.device("0000:00:05.0", 40)
        tree.group(48)
        tree.device("0000:00:06.0", driver="e1000e")
        said = tree.json()
        text = tree.said()
        picture = tree.said("--dot")
    assert picture.count("fillcolor=mistyrose") == 3, picture
    assert picture.count(" color=red") + picture.count("\tcolor=red") == 2, picture
    assert {group["group"]: group["ownable"] for group in said["groups"]} == {
        32: False, 40: True, 48: False, 160: False, 161: True, 162: True}
    assert "host_driver" not in said["ungrouped"][0], said
    titles = [line for line in text.splitlines() if line[0:1] in ("G", "N")]
    free = "no driver of the host is in the way"
    assert titles == [
        "Group 32: cannot be owned: 0000:00:04.5 is on e1000e; "
        "0000:00:04.6 is on uio_pci_generic",
        f"Group 40: {free}", "Group 48: no devices",
        "Group 160: cannot be owned: AMDI0020:00 is on dw-apb-uart",
        f"Group 161: {free}", f"Group 162: {free}",
        "No group: firmware describes no IOMMU: look for an IOMMU or SMMU in "
        "its setup"], titles
    assert re.search(r"^`-- AMDI0020:00 +dw-apb-uart +driver +platform device$",
                     text, re.MULTILINE), text


def leaves_out_what_goes():
    """A device that is unplugged while its files are read."""
    with Tree() as tree:
        tree.device("0000:00:04.0", 32)
        tree.device("0000:00:05.0", 32)
        device = tree.top / "devices/pci/0000:00:05.0"
        os.mkfifo(device / "iommu_group_reason")

        def unplug():
            with open(device / "iommu_group_reason", "w") as reason:
                device.rename(tree.top / "gone")
                reason.write("base\n")

        threading.Thread(target=unplug, daemon=True).start()
        said = tree.json()
    group, = said["groups"]
    assert [member["device"] for member in group["devices"]] == \
        ["0000:00:04.0"] and not said["ungrouped"], said


def odd_names():
    """Whatever is in a name, the JSON is JSON, dot is dot, a line a line."""
    odd = {'quote"s': 'quote"s', "back\\slash": "back\\slash",
           "end\\": "end\\", "a\nline": "a\nline", "esc\x1b[31m": "esc\x1b[31m",
           "caf\u00e9 \u20ac \U0001f600": "caf\u00e9 \u20ac \U0001f600",
           "A&lt;T": "A&lt;T", "c1\u009b": "c1\u009b", "%s%n": "%s%n",
           "latin\udce9": "latin\ufffd", "over\udcc0\udc80": "over\ufffd\ufffd",
           "half\udce2\udc82": "half\ufffd\ufffd",
           "pair\udced\udca0\udc80": "pair\ufffd\ufffd\ufffd",
           "]}": "]}", "null": "null", "x" * 250: "x" * 250}
    with Tree() as tree:
        tree.group(7, name="na\"me\\\udcff")
        for name in odd:
            tree.device(name, 7, bus="platform", driver=name)
        said = tree.json()
        text = tree.said()
        frames, nodes, _ = graph(tree.said("--dot"))
    group, = said["groups"]
    assert group["name"] == "na\"me\\\ufffd", group
    for member in ("device", "driver"):
        assert sorted(device[member] for device in group["devices"]) == \
            sorted(odd.values()), group
    lines = text.splitlines()
    lines = [line for line in lines if not line.startswith("    ")]
    assert len(lines) == 1 + len(odd), text
    assert lines[0].startswith('Group 7 (na"me\\?): cannot be owned: ')
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text), repr(text)
    assert len(frames) == 1 and len(nodes) == len(odd), nodes


def same_names():
    """A member is named as it is itself, however its link is."""
    with Tree() as tree:
        tree.device("twin", 7, bus="platform")
        tree.device("twin", 7, bus="amba", entry="twin.0")
        group, = tree.json()["groups"]
        _, nodes, _ = graph(tree.said("--dot"))
    assert [(device["device"], device["bus"]) for device in group["devices"]] \
        in ([("twin", "amba"), ("twin", "platform")],
            [("twin", "platform"), ("twin", "amba")]), group
    assert len(nodes) == 2, nodes


def some_only():
    """Arguments choose groups, by number and member, and lone devices."""
    with Tree() as tree:
        for function in (0, 1):
            tree.device(f"0000:00:04.{function}", 32)
            tree.device(f"0001:0a:00.{function}", 68096)
            tree.device(f"0000:00:06.{function}")
        tree.device("AMDI0020:00", 160, bus="platform")
        tree.group(48)
        for arguments, groups, lone in (
                ("32", {32: 2}, 0),
                ("00:04.1", {32: 2}, 0),
                ("0000:00:04.1 32", {32: 2}, 0),
                ("0001:0A:00.0 48", {48: 0, 68096: 2}, 0),
                ("AMDI0020:00", {160: 1}, 0),
                ("00:06.1", {}, 1),
                ("00:06.1 00:06.0 160", {160: 1}, 2),
                ("", {32: 2, 48: 0, 160: 1, 68096: 2}, 2)):
            said = tree.json(*arguments.split())
            assert {group["group"]: len(group["devices"])
                    for group in said["groups"]} == groups, (arguments, said)
            assert len(said["ungrouped"]) == lone, (arguments, said)
            text = tree.said(*arguments.split())
            assert text.count("-- ") == sum(groups.values()) + lone, text
            _, nodes, _ = graph(tree.said("--dot", *arguments.split()))
            assert len(boxes(nodes)[0]) == sum(groups.values()) + lone, nodes


def by_any_name():
    """In each way that people have it, the one device and no other."""
    with Tree() as tree:
        root = "pci0000:00"
        tree.device("0000:00:05.0", 40, below=root, device="0x000c")
        card = tree.device("0000:03:00.0", 768, below=f"{root}/0000:00:05.0")
        tree.device("0000:03:00.1", 769, below=f"{root}/0000:00:05.0",
                    device="0x10d4")
        tree.device("0000:00:06.0", 48, below=root, device="0x10d5")
        tree.device("10000:e0:06.0", 9, below=f"{root}/0000:00:06.0/pci10000:e0",
                    device="0x10d6")
        virtual = tree.device("0000:04:00.0", 1024, device="0x10ed",
                              below=f"{root}/0000:00:05.0")
        (virtual / "physfn").symlink_to(card)
        (card / "virtfn0").symlink_to(card)
        (card / "virtfn1").symlink_to(virtual)
        for part in ("net/eth0", "vfio-dev/vfio0", "block/vda/vda1"):
            (card / part).mkdir(parents=True)
        (card / "block/vda/vda1/partition").write_text("1")
        (tree.top / "devices/virtual/block/dm-0/slaves").mkdir(parents=True)
        (tree.top / "devices/virtual/block/dm-0/slaves/vda1").symlink_to(
            card / "block/vda/vda1")
        (tree.top / "devices/virtual/net/br0").mkdir(parents=True)
        (tree.top / "devices/virtual/net/br0/lower_eth0").symlink_to(
            card / "net/eth0")
        subsystem = tree.top / "devices/virtual/nvme-subsystem/nvme-subsys0"
        (subsystem / "nvme0n1").mkdir(parents=True)
        (card / "nvme/nvme0").mkdir(parents=True)
        (subsystem / "nvme0").symlink_to(card / "nvme/nvme0")
        tree.link("class/net/eth0", card / "net/eth0")
        tree.link("class/net/br0", tree.top / "devices/virtual/net/br0")
        tree.link("class/vfio-dev/vfio0", card / "vfio-dev/vfio0")
        tree.link("class/block/vda1", card / "block/vda/vda1")
        tree.link("class/block/dm-0", tree.top / "devices/virtual/block/dm-0")
        tree.link("class/block/nvme0n1", subsystem / "nvme0n1")
        tree.link("dev/char/1:3", card / "net/eth0")
        links = tree.top / "bus/pci/devices"
        for group, names in {
                768: ("03:00.0", "3:0.0", "0:03:00.0", "0000:3:0.0",
                      "00:05.0/00.0", "0:5.0/0.0", "0000:00:05.0/00.0",
                      "8086:10D3", "/dev/vfio/768", "/dev/vfio/noiommu-768",
                      "noiommu-768", "vfio0", "/dev/vfio/devices/vfio0", "eth0",
                      "br0", "vda1", "dm-0", "nvme0n1", "/dev/null",
                      links / "0000:03:00.0", card, card / "net",
                      tree.top / "class/net/eth0",
                      tree.top / "kernel/iommu_groups/768"),
                769: ("03:00.1", "8086:10d4", "00:05.0/0.1"),
                1024: ("00:05.0/00.0/vf1", "0:5.0/0.0/VF1", "04:0"),
                9: ("10000:e0:06.0", "10000:e0:6.0")}.items():
            for name in names:
                found = [one["group"] for one in tree.json(name)["groups"]]
                assert found == [group], f"{name}: {found}, not {group}"
        found = [one["group"] for one in tree.json("3:00")["groups"]]
        assert found == [768, 769], found
        for name in ("03:00.2", "00:05.0/", "00:05.0/01.0", "00:05.0/00.0/00.0",
                     "00:05.0/00.0/vf0", "00:05.0/vf1", "8086:10d", "086:10d3",
                     "003:00.0", "03:00.", "03", "vfio1", "/dev/vfio/769x",
                     "/dev/vfio/devices/vfio1", "/dev/zero", "/nowhere", "..",
                     "net", "../block/vda1", tree.top):
            tree.fails(f"'{name}'", name)


def wrong_input():
    """It is named, nothing is listed, and the exit status is 1."""
    with Tree() as tree:
        tree.device("0000:00:04.0", 32)
        ids = tree.top / "ids"
        ids.write_text('{"groups": [1, {"a": [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]')
        for reason, *arguments in (
                ("no IOMMU group '33'", "33"),
                ("no IOMMU group '99999999999999999999'", "32",
                 "99999999999999999999"),
                ("'00:04.1'", "00:04.1"), ("'-x'", "--", "-x"), ("''", ""),
                ("'32x'", "32x"), ("'0x20'", "0x20"), ("'04:00.0'", "04:00.0"),
                ("--jsom", "--jsom"), ("'x'", "-x"), ("pci-ids", "--pci-ids"),
                ("'--json' doesn't allow", "--json=1"),
                ("--dot and --json", "--dot", "--json"),
                ("--json and --dot", "-jd"),
                ("--path and --handover", "-p", "--handover", "32"),
                ("not '32'", "--since", "/dev/null", "32"),
                ("/nowhere: No such file", "--since", "/nowhere"),
                ("/dev/null: this is no JSON", "--since", "/dev/null"),
                (f"{ids}: this is no JSON", "--since", ids),
                ("/nowhere/ids: No such file", "--pci-ids", "/nowhere/ids"),
                (f"{tree.top}: Is a directory", "-i", tree.top),
                ("/nowhere: no sysfs", "--sysfs", "/nowhere"),
                (f"{MAN}: no sysfs", "--sysfs", MAN)):
            tree.fails(reason, *arguments)
        status = subprocess.run(
            [PROGRAM, "--sysfs", tree.top], stdout=open("/dev/full", "w"),
            stderr=subprocess.PIPE)
        assert status.returncode == 1 and b"No space left" in status.stderr


def nothing_there():
    """A kernel without IOMMU, and one without PCI."""
    with Tree() as tree:
        assert tree.said() == "There are no IOMMU groups.\n"
        assert tree.json() == {"groups": [], "ungrouped": []}
        assert graph(tree.said("--dot"))[0] == []
        tree.device("0000:00:04.0")
        assert tree.said("-i", "/dev/null") == (
            "There are no IOMMU groups.\n\n"
            "No group: this kernel has no IOMMU support\n"
            "`-- 0000:00:04.0  -  Class 0200: [8086:10d3]\n")
        tree.fails("no IOMMU group '0'", "0")


def names_by_number():
    """The parts of pci.ids that matter, and lines that are none."""
    with Tree() as tree:
        ids = tree.top / "ids"
        ids.write_bytes(b"# no: a comment\n\nnonsense\n\t10d3  no: above all\n"
                        b"1000  no: another vendor\n\t10d3  no: of another\n"
                        b"8086  Vendor\xff\n\t10d4  no\n\t10d3  A \"name\"\n"
                        b"\t\t8086 0001  no: a subsystem\n"
                        b"10d3  no: a vendor\nC 02  Network\n\n# no\n"
                        b"\t00  Ethernet\n\t\t01  no\nC 10  no\n\t00  no")
        tree.device("0000:00:04.0", 32)
        tree.device("0000:00:05.0", 40, device="0x0001", **{
            "class": "0x020100"})
        tree.device("0000:00:06.0", 48, vendor="0x0001", **{
            "class": "0xff0000"})
        groups = tree.json("-i", ids)["groups"]
        text = tree.said(f"--pci-ids={ids}").splitlines()
    found = [[group["devices"][0][f"{what}_name"]
              for what in ("class", "vendor", "device")] for group in groups]
    assert found == [["Ethernet", "Vendor\ufffd", 'A "name"'],
                     ["Network", "Vendor\ufffd", None],
                     [None, None, None]], found
    assert text[1].endswith('  Ethernet: Vendor? A "name" [8086:10d3]'), text
    assert text[4].endswith("  Network: Vendor? [8086:0001]"), text
    assert text[7].endswith("  Class ff00: [0001:10d3]"), text


def options_are_documented():
    """The manual page has what --help has, and both what there is."""
    def run(option):
        return subprocess.run([PROGRAM, option], check=True, text=True,
                              capture_output=True).stdout

    listed = set(re.findall(r"--[a-z-]+", run("--help")))
    manual = MAN.read_text().replace("\\-", "-")
    options = manual.split(".SH OPTIONS")[1].split(".SH")[0]
    assert set(re.findall(r"--[a-z-]+", options)) == listed, listed
    assert listed == {"--dot", "--json", "--pci-ids", "--sysfs", "--proc",
                      "--path", "--udev", "--since", "--handover", "--force", "--help", "--version"}, listed
    assert re.fullmatch(r"lsiommu \d+\.\d+\n", run("--version"))
    assert run("-h") == run("--help") and run("-V") == run("--version")


def boots():
    """Every machine, under every IOMMU that it has, also without the series."""
    for name in machine.names():
        for iommu in X86_IOMMUS:
            for kernel in dict.fromkeys((TESTED, "stock")):
                yield name, iommu, PLAIN, kernel
        for kind, iommu, cmdline in machine.load(name).blocks:
            if (kind, iommu) == ("groups", "smmu"):
                yield name, iommu, cmdline, TESTED


def cases():
    for which in boots():
        name, iommu, _, kernel = which
        where = f"{name}, {iommu}, {kernel}:"
        yield (f"{where} lsiommu --json has the groups, drivers and reasons of "
               "sysfs", as_sysfs, *which)
        yield f"{where} lsiommu's JSON is as its manual page says", \
            as_schema, *which
        yield (f"{where} lsiommu's tree and picture have what its JSON has",
               same_in_all_forms, *which)
    for iommu in VENDORS:
        yield (f"{iommu}: lsiommu names the host driver that VFIO refuses a "
               "group for, and none otherwise", ownable_as_kernel, iommu)
        for policy in "warn", "refuse":
            yield (f"{iommu}, {policy}: lsiommu says who can own a group as the "
                   "kernel decides", states_as_kernel, iommu, policy)
        yield (f"{iommu}: lsiommu shows what a group reaches as the kernel does",
               reach_as_kernel, iommu)
    for driverctl in False, True:
        yield ("lsiommu --handover gives a network device away and takes it back "
               f"with{'' if driverctl else 'out'} driverctl", handover_in_guest,
               driverctl)
    yield ("udev makes links to VFIO's nodes by path, which lead to the same "
           "device when a card has moved the buses", links_by_path)
    for kernel in dict.fromkeys((TESTED, "stock")):
        yield (f"{kernel}: lsiommu --since says what moved from stock's groups, and "
               "with a card that moves the buses", since_stock, kernel)
    yield ("lsiommu says that VFIO has a device without an IOMMU, and which node it is",
           without_iommu)
    yield "lsiommu takes the names that devices have in a guest", names_in_guest
    for name, iommu, cmdline, device, why, *besides in WHY:
        yield (f"{name}, {iommu}, {cmdline}: lsiommu says of {device}: {why}",
               why_in_guest, name, iommu, cmdline, device, why, *besides)
    yield "lsiommu --handover knows a guest's root disk", root_in_guest
    yield "lsiommu --handover knows the card that a guest's console is on", \
        console_in_guest
    yield "lsiommu names devices as pci.ids does", names_of_devices
    for number, case in enumerate(STATUS):
        policy, states, _, _, line, _ = case
        yield (f"lsiommu, {policy}, {number}: {states.get(32)} and {line}",
               what_is_in_the_way, *case)
    for property, function in (
            ("sorts groups by number and members by address", in_order),
            ("names each member on a host driver and no other", host_drivers),
            ("shows what is reached where it can be read", what_is_reached),
            ("leaves out a device that goes away meanwhile",
             leaves_out_what_goes),
            ("prints valid JSON and dot whatever the names", odd_names),
            ("knows two members of one name apart", same_names),
            ("lists only the groups that it was asked for", some_only),
            ("takes devices as people have them", by_any_name),
            ("says what is wrong with a port as the kernel does",
             faults_of_ports),
            ("names who has a group open, and firmware that uses a device",
             what_firmware_or_others_have),
            ("says why a device has no group", without_a_group),
            ("shows what the host has on a device", what_the_host_has),
            ("knows all disks of a filesystem, and the disk of all controllers",
             disks_of_several),
            ("says in order how to give a device away and take it back",
             handed_over),
            ("--handover refuses the root disk and the console's only card",
             not_handed_over),
            ("prints paths, and links to nodes by them", by_path),
            ("says what is otherwise than before", since_before),
            ("draws a hundred devices so that they can be read", large_picture),
            ("has no key in its JSON that its manual page has not",
             schema_is_used),
            ("says what is wrong in its input", wrong_input),
            ("says that there are no groups", nothing_there),
            ("reads no more of pci.ids than what is there", names_by_number),
            ("has its options in --help and in its manual page",
             options_are_documented)):
        yield f"lsiommu {property}", function
