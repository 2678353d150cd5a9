# SPDX-License-Identifier: GPL-2.0-only
"""Debian's configuration, and a Debian 13 on a disk, with packages that make deb built.

apt installs them there, and guest.Installed boots it. Only root can make one; nothing
is installed on this machine.
"""
import os
import shutil
import subprocess
import sys

from command import run
from where import TOP

SUITE = "trixie"
# All kernels have the same Debian.
HERE = TOP / "build/debian"
BASE = HERE / SUITE
# Of a Debian for a person, what boots it and what lists its devices
PACKAGES = ["initramfs-tools", "kmod", "pciutils", "systemd-sysv", "udev", "zstd"]
# Room for the modules of the whole configuration
SIZE = "4G"
# The host asks it, as it asks the other guests.
AGENT = """
[Unit]
After=multi-user.target
[Service]
ExecStart=/usr/local/sbin/agent
[Install]
WantedBy=multi-user.target
"""


def configuration(flavour):
    """Debian's own of the kernel, as rig/debian-config prints it."""
    return subprocess.run([TOP / "rig/debian-config", flavour], check=True, text=True,
                          stdout=subprocess.PIPE).stdout


def must(*command):
    """By itself: what it mounts goes when it ends, however it ends."""
    status, said = run("unshare", "-m", *map(str, command), env={
        **os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert not status, f"{' '.join(map(str, command))}: {said[-3000:]}"


def bootstrap():
    """What all disks have in common."""
    stamp, new = HERE / "packages", HERE / "new"
    wanted = " ".join([SUITE, *PACKAGES])
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"# getting a Debian of {SUITE}", file=sys.stderr, flush=True)
    for old in BASE, new:
        if old.exists():
            shutil.rmtree(old)
    HERE.mkdir(parents=True, exist_ok=True)
    must("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}",
         SUITE, new)
    new.rename(BASE)
    stamp.write_text(wanted)


class Disk:
    """The kernel, its initrd and the disk.

    agent       the program that answers the host
    """

    def __init__(self, name, packages, agent):
        bootstrap()
        made, root = HERE / name, HERE / f"{name}-root"
        for old in made, root:
            if old.exists():
                shutil.rmtree(old)
        must("cp", "-a", BASE, root)
        for package in packages:
            shutil.copy(package, root / "root")
        must("chroot", root, "sh", "-c", "apt-get install -y --no-install-recommends "
             "/root/*.deb && rm /root/*.deb")
        shutil.copy(agent, root / "usr/local/sbin/agent")
        (root / "etc/systemd/system/agent.service").write_text(AGENT)
        must("chroot", root, "systemctl", "enable", "agent")
        made.mkdir()
        self.image = made / "disk"
        must("mkfs.ext4", "-q", "-d", root, self.image, SIZE)
        # As a boot loader reads them
        self.kernel, = root.glob("boot/vmlinuz-*")
        self.initrd, = root.glob("boot/initrd.img-*")
        self.kernel, self.initrd = (file.rename(made / file.name)
                                    for file in (self.kernel, self.initrd))
        shutil.rmtree(root)
