# SPDX-License-Identifier: GPL-2.0-only
"""Guests that hang while they boot: started again once, if nothing is grouped yet."""
import json
import pathlib
import tempfile

import guest
import where

NEEDS = ""

# A QEMU that hangs, or is up, as the number of the boot says.
QEMU = r"""#!/usr/bin/env python3
import json, os, re, socket, sys
place, words = sys.argv[1], " ".join(sys.argv)
def end(name):
    return socket.socket(fileno=int(re.search(rf"socket,id={name},fd=(\d+)", words)[1]))
agent, monitor = end("agent"), end("monitor")
boots = json.load(open(place + "/boots"))
log, address = boots.pop(0)
json.dump(boots, open(place + "/boots", "w"))
with open(re.search(r"id=log,path=(\S+)", words)[1], "w") as file:
    file.write(log)
if log == "up":
    agent.sendall(b"ready\n")
monitor.sendall(b"{}\n")
while monitor.recv(65536):
    monitor.sendall(json.dumps({"return": f"RIP={address}\n"}).encode() + b"\n")
"""
SYMBOLS = "1000 T idle\n2000 t watchdog_check_skew\n3000 T other\n"
IDLE, SKEW = "1234", "2345"

START = "[    0.0] Linux version\n"
FINDING = START + ("[    0.5] PCI host bridge to bus 0000:00\n"
                   "[    0.6] pci 0000:00:03.0: [1b36:000c]\n")
FOUND = FINDING + ("[    0.7] PCI: Using ACPI for IRQ routing\n"
                   "[    0.8] hpet: 3 channels of 0 reserved for per-cpu timers\n")
LAST = FOUND + "[    0.9] PCI: CLS 0 bytes, default 64\n"
GROUP = LAST + "[    1.0] pci 0000:00:00.0: Adding to iommu group 0: base\n"
BROKEN = START + "[    0.1] BUG: kernel NULL pointer dereference\n"
UP = ("up", IDLE)


def boots(said, again, error=""):
    """Boots that hang with a log and CPUs there, or are up: how often there is another."""
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        (place / "boots").write_text(json.dumps(said))
        (place / "System.map").write_text(SYMBOLS)
        (place / "qemu").write_text(QEMU)
        (place / "qemu").chmod(0o755)

        class Fake(guest.X86):
            program = (str(place / "qemu"), str(place))
            kernels = {"patched": place / "bzImage"}

        class Impatient(guest.Guest):
            BOOT, quiet, again = 4, 1, 0

            def started_again(self):    # the run does not count this one
                Impatient.again += 1
        fake = f"hung-{place.name}"
        guest.ARCHITECTURES[fake], guest.IOMMU[fake] = Fake, []
        found = ""
        try:
            Impatient("pxb", fake, log="rig", bind=False).kill()
        except guest.GuestError as why:
            found = str(why)
        kept = list((where.BUILD / "logs").glob(f"rig-{fake}.*"))
        said = [path for path in kept if "CPUs are in: " in path.read_text()]
        for path in kept:
            path.unlink()
        assert len(said) == 1, f"QEMU is not asked, or not kept: {kept}"
        assert bool(found) == bool(error) and error in found, found
        assert Impatient.again == again, f"started {Impatient.again} times: {found}"
        left = json.loads((place / "boots").read_text())
        assert not left, f"not booted: {left}"


TWICE = "hangs a second time"
IN_VAIN = "does not boot in time"


def cases():
    for what, log, at in (
            ("before it finds devices", START, IDLE),
            ("when devices are found, before an IOMMU's driver begins", FOUND, IDLE),
            ("while devices are found, in the clocksource watchdog", FINDING, SKEW)):
        yield f"a guest that hangs {what} is started again", boots, [(log, at), UP], 1
        yield (f"a guest that hangs {what} fails the second time", boots,
               [(log, at), (log, at)], 1, TWICE)
    for what, log, at in (
            ("while devices are found", FINDING, IDLE),
            ("when IOMMU drivers may have begun", LAST, IDLE),
            ("when something is grouped, in the clocksource watchdog", GROUP, SKEW),
            ("after a bug", BROKEN, IDLE)):
        yield f"a guest that hangs {what} fails", boots, [(log, at)], 0, IN_VAIN
    yield "a guest that hangs another way the second time fails", boots, \
        [(START, IDLE), (GROUP, IDLE)], 1, IN_VAIN
