# SPDX-License-Identifier: GPL-2.0-only
"""The packages that make deb builds, and what it says of a wrong request.

The kernel is the tests' own, with what a distribution's configuration has besides,
and once more Debian's own, with Debian's configuration. That takes long, so it is for
make check, which sets LONG=1.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading

import changed
import debian
import guest
import machine
import series
import where
from build import Build
from command import run
from fixtures import LONG, TESTED, Skip, bind, numbered_by_requester_id, partition, \
    same_groups

NEEDS = "stock userspace"
TOP = where.TOP
DEB = where.BUILD / "debtest"
# What a distribution's configuration has besides: debug information, modules.
MORE = """
# CONFIG_DEBUG_INFO_NONE is not set
CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=y
CONFIG_LOCALVERSION_AUTO=y
CONFIG_VFIO_PCI=m
CONFIG_CONFIGFS_FS=m
"""
# And keys that only the distribution has.
KEYS = """
CONFIG_MODULE_SIG=y
CONFIG_MODULE_SIG_KEY=""
CONFIG_SYSTEM_TRUSTED_KEYRING=y
CONFIG_SYSTEM_TRUSTED_KEYS="debian/certs/debian-uefi-certs.pem"
"""
# The controller of the disk that a Debian is on
DISK = "00:1f.2"
# What the running kernel is said to have loaded.
LSMOD = "Module Size Used by\nefi_pstore 16384 0\n"

# Debian's configuration that is taken; FLAVOUR=amd64 is for all machines, and takes
# hours.
FLAVOUR = os.environ.get("FLAVOUR", "cloud-amd64")


def once(function):
    """Several tests want what it makes, and fail alike if it cannot be made."""
    lock, outcome = threading.Lock(), []

    def made():
        with lock:
            if not outcome:
                try:
                    outcome.append((function(), None))
                except Exception as why:
                    outcome.append((None, why))
        result, why = outcome[0]
        if why:
            raise why
        return result
    return made


def deb(*arguments, **environment):
    """Exit status and both streams of scripts/deb."""
    return run(TOP / "scripts/deb", *arguments,
               env={**os.environ, "DEB": "debtest", **environment})


def configuration(place, more):
    """The tests' own kernel's, and more; in a file of the directory."""
    path = pathlib.Path(place, "config")
    path.write_text((where.BUILD / "patched/.config").read_text() + more)
    return str(path)


@once
def packages():
    """The directory the packages are unpacked in, and what was said.

    From nothing: compiled_as_kbuild_does() looks at how that went.
    """
    shutil.rmtree(where.BUILD / "debtest-tree", ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        loaded = pathlib.Path(place, "lsmod")
        loaded.write_text(LSMOD)
        status, said = deb(CONFIG=configuration(place, MORE), LOCALMOD="1",
                           LSMOD=str(loaded))
    assert not status, said
    shutil.rmtree(DEB / "unpacked", ignore_errors=True)
    for kind in ("image", "headers"):
        package, = DEB.glob(f"linux-{kind}-*.deb")
        subprocess.run(["dpkg-deb", "-x", package, DEB / "unpacked"],
                       check=True)
    return DEB / "unpacked", said


@once
def of_debian():
    """The packages of Debian's own configuration, and what compilers said."""
    name = f"deb-{FLAVOUR}"
    # What is not compiled says nothing; the rest is compiled where it has changed.
    Build(where.LINUX, where.BUILD / f"{name}-tree").forget(changed.FOLDERS)
    with tempfile.TemporaryDirectory() as place:
        path = pathlib.Path(place, "config")
        path.write_text(debian.configuration(FLAVOUR))
        status, said = deb(CONFIG=str(path), DEB=name)
    assert not status, said
    return (list((where.BUILD / name).glob("*.deb")),
            (where.BUILD / f"logs/{name}.log").read_text(errors="replace"))


@once
def installed():
    """A Debian 13 with these."""
    if os.getuid():
        raise Skip("only root can make a Debian")
    return debian.Disk(f"{where.KERNEL}-{FLAVOUR}", of_debian()[0],
                       where.BUILD / "guest/init")


def is_ours(running, kernel, iommu):
    """The kernel that runs, by its name and its groups, which it gives."""
    name = running.sh("uname -r").strip()
    assert name == kernel.name.removeprefix("vmlinuz-"), name
    assert name.endswith("-groups"), name
    groups = running.groups()
    same_groups(partition(groups), machine.load("demo").expected(iommu))
    numbered_by_requester_id(groups)
    assert running.reasons()["02:00.1"] == "function 02:00.0"
    return groups


def runs_debian(iommu):
    """As a person finds it after the first boot, and hands a device over."""
    disk = installed()
    with guest.Installed("demo", iommu, disk, log="debian") as running:
        version = running.sh("cat /etc/debian_version")
        assert version.startswith("13"), version
        state = running.run("systemctl is-system-running --wait")[1]
        assert state == "running\n", state + running.sh("systemctl --failed")
        groups = is_ours(running, disk.kernel, iommu)
        kind = running.sh(f"cat /sys/kernel/iommu_groups/{groups[DISK]}/type")
        assert kind.startswith("DMA"), f"the disk is not behind the IOMMU: {kind}"
        running.sh("modprobe vfio-pci")
        bind(running, "01:00.0")
        running.sh("udevadm settle")
        link = running.sh("readlink /dev/vfio/by-path/00:03.0-00.0-group")
        assert link.strip() == f"../{groups['01:00.0']}", link
        said = running.sh("lsiommu 01:00.0")
        assert "vfio-pci" in said, said
        assert "module verification failed" not in running.log(), running.logfile


def without_warnings():
    _, log = of_debian()
    for folder in changed.FOLDERS:
        assert re.search(rf"^  CC( \[M\])? +{folder}/", log, re.M), f"no {folder}"
    commits = series.commits()
    touched = series.touched(commits[0], commits[-1])
    complaints = [line for line in series.messages(log)
                  if any(file in line for file in touched)]
    assert not complaints, complaints


def boots(iommu):
    place, _ = packages()
    kernel, = place.glob("boot/vmlinuz-*")
    with guest.Guest("demo", iommu, kernel=str(kernel), log="deb") as running:
        is_ours(running, kernel, iommu)


@once
def tool():
    """The package of lsiommu, which needs no kernel to be built."""
    status, said = deb("lsiommu", DEB="debtool")
    assert not status, said
    package, = (where.BUILD / "debtool").glob("*.deb")
    assert package.name.startswith("lsiommu_"), package
    return package


def tool_alone(kernel):
    """Unpacked in a Debian without anything else of ours, it does all it does."""
    files = subprocess.run(f"dpkg-deb --fsys-tarfile '{tool()}' | gzip -9 | base64 -w 0",
                           shell=True, check=True, text=True,
                           capture_output=True).stdout
    with guest.Debian("demo", "intel", kernel=kernel, log="debtool") as running:
        running.sh("rm /bin/lsiommu /lib/udev/rules.d/60-vfio-by-path.rules; "
                   f"echo {files} | base64 -d | gunzip | tar -x -C /")
        running.sh("/lib/systemd/systemd-udevd --daemon; udevadm settle")
        bind(running, "01:00.0")
        running.sh("udevadm settle")
        found = {machine.short(device["device"]): group["group"] for group in
                 json.loads(running.sh("/usr/bin/lsiommu --json"))["groups"]
                 for device in group["devices"]}
        groups = running.groups()
        assert found == {device: number for device, number in groups.items()
                         if number is not None}, found
        link = running.sh("readlink /dev/vfio/by-path/00:03.0-00.0-group")
        assert link.strip() == f"../{groups['01:00.0']}", link


def installs(packages, wanted, root):
    """With dpkg, in a directory that has nothing, and goes without a trace."""
    with tempfile.TemporaryDirectory() as place:
        status = pathlib.Path(place, "var/lib/dpkg")
        for part in "info", "updates", "triggers":
            (status / part).mkdir(parents=True)
        (status / "status").write_text("")
        for *command, there in (
                ("-i", *packages, wanted),
                ("-P", *(package.name.split("_")[0] for package in packages), set())):
            code, said = run(
                *root, "dpkg", "--root", place, "--log=/dev/null", "--force-depends",
                "--force-script-chrootless", *command,
                env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
            assert not code, said
            assert files(place) == there, files(place) ^ there


def files(place):
    """All that are there, but for what dpkg notes."""
    return {str(path.relative_to(place)) for path in pathlib.Path(place).rglob("*")
            if path.is_file() and "dpkg" not in path.parts}


def tool_installs():
    if os.getuid() and not shutil.which("fakeroot"):
        raise Skip("needs root or fakeroot")
    installs([tool()], {"usr/bin/lsiommu", "usr/share/man/man8/lsiommu.8.gz",
                        "usr/lib/udev/rules.d/60-vfio-by-path.rules"},
             ["fakeroot"] if os.getuid() else [])


def kernel_installs():
    """Without what this machine does for each kernel that it gets."""
    place, _ = packages()
    hidden = ["unshare", "-rm", "sh", "-c", "[ ! -e /etc/kernel ] || "
              "mount -t tmpfs none /etc/kernel && exec \"$@\"", "sh"]
    if run(*hidden, "true")[0]:
        raise Skip("needs a mount namespace")
    installs([*DEB.glob("linux-*.deb")], files(place), hidden)


def compiled_as_kbuild_does():
    """So nobody is warned of what macros become, and what is counted is done."""
    _, said = packages()
    log = (where.BUILD / "logs/debtest.log").read_text(errors="replace")
    for warning in "-Waddress", "-Wtautological-compare":
        assert warning not in log, warning
    steps = len(re.findall(r"^  [A-Z]\w*(?: \[M\])? +\S", log, re.M))
    expected = re.findall(r"compiling .* of about (\d+)\)", said)
    assert expected and abs(int(expected[0]) - steps) < steps / 5, \
        f"{steps}, not {expected}"
    assert "more than" not in said, said


def has(config, options):
    lines = config.read_text().splitlines()
    for option in options:
        assert option in lines, f"no {option}"


def is_complete():
    place, said = packages()
    config, = place.glob("boot/config-*")
    has(config, ("CONFIG_DEBUG_INFO_NONE=y", "CONFIG_VFIO_PCI=m",
                 "# CONFIG_LOCALVERSION_AUTO is not set",
                 "# CONFIG_CONFIGFS_FS is not set"))
    for what in ("CONFIG_DEBUG_INFO: off", "LOCALMOD: ", "apt install "):
        assert what in said, f"'{what}' is not said: {said}"
    assert list(place.glob("lib/modules/*/kernel/drivers/vfio/pci/"
                           "vfio-pci.ko")), "no vfio-pci.ko"
    assert list(place.glob("usr/src/linux-headers-*/Makefile")), "no headers"
    assert list(DEB.glob("lsiommu_*.deb")), "no lsiommu"


def keys_are_made():
    """Kbuild stops in certs/ where a key is missing."""
    with tempfile.TemporaryDirectory() as place:
        status, said = deb("config", CONFIG=configuration(place, KEYS),
                           DEB="debkeys")
    assert not status, said
    assert "there is no debian/certs/debian-uefi-certs.pem here" in said, said
    tree = where.BUILD / "debkeys-tree"
    has(tree / ".config", ('CONFIG_SYSTEM_TRUSTED_KEYS=""',
                           "CONFIG_MODULE_SIG=y",
                           'CONFIG_MODULE_SIG_KEY="certs/signing_key.pem"'))
    done = subprocess.run([*Build(where.LINUX, tree).command, "-s", "certs/"],
                          capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert (tree / "certs/signing_key.x509").stat().st_size


def warns():
    """Of what the running kernel has and this one will not; else it is silent."""
    secure_boot = "firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    for release, taint, on, count in (("7.0.2-1-pve", "POE", 1, 3),
                                      ("6.12.1-amd64", "", 0, 0),
                                      ("6.12.1-amd64", "", None, 0)):
        with tempfile.TemporaryDirectory() as place:
            files = {"module/zfs/taint": f"{taint}\n".encode(),
                     "module/e1000e/taint": b"\n"}
            if on is not None:
                files[secure_boot] = bytes([6, 0, 0, 0, on])
            for file, content in files.items():
                path = pathlib.Path(place, file)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            # Before anything else, so that this does not matter.
            _, said = deb(CONFIG="/nonexistent", DEB="debwrong", SYSFS=place,
                          RELEASE=release)
        *notes, _ = said.splitlines()
        assert len(notes) == count, notes
        for word, note in zip(("packages: zfs;", "Secure Boot is on", "Proxmox"), notes):
            assert word in note, notes


def wrong_is_refused(environment, reason):
    status, said = deb(**{"DEB": "debwrong", **environment})
    assert status and reason in said.splitlines()[-1], f"{status}: {said}"


def without_configuration():
    """In a world with an empty /boot and an empty /proc."""
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /boot && "
         "mount -t tmpfs none /proc && echo here && exec scripts/deb"],
        cwd=TOP, capture_output=True, text=True)
    if "here" not in done.stdout:
        raise Skip(f"needs a mount namespace: {done.stderr.strip()}")
    release = os.uname().release
    for part in (f"/boot/config-{release}", "/proc/config.gz", "CONFIG=path"):
        assert part in done.stderr, f"no '{part}' in: {done.stderr}"
    assert done.returncode


def cases():
    if LONG:
        for iommu in ("intel", "amd"):
            yield (f"{iommu}: the image in the package boots, with our groups and "
                   "numbers and a name of its own", boots, iommu)
            yield (f"{iommu}: a Debian 13 runs from the packages of its own "
                   f"configuration ({FLAVOUR}), on a disk behind the IOMMU, and hands "
                   "a device over", runs_debian, iommu)
        yield (f"no warning in what the series touches, with Debian's configuration "
               f"({FLAVOUR})", without_warnings)
        yield "those of the kernel and its headers are installed and removed", \
            kernel_installs
        yield ("the packages have headers, the modules that are loaded and VFIO's, "
               "no debug information, and it is said", is_complete)
        yield ("the kernel is compiled as kbuild does it, without warnings of what "
               "macros become, and about as many steps are expected as there are",
               compiled_as_kbuild_does)
    for kernel in "stock", TESTED:
        yield (f"{kernel}: the package lsiommu needs nothing else of ours",
               tool_alone, kernel)
    yield "the package lsiommu is installed and removed", tool_installs
    yield ("it warns of modules from outside Linux, of Secure Boot and of Proxmox",
           warns)
    yield ("keys that only the distribution has are done without",
           keys_are_made)
    for environment, reason in (
            ({"CONFIG": "/nonexistent"}, "CONFIG=/nonexistent: no such file"),
            ({"CONFIG": "/tmp"}, "CONFIG=/tmp: is no file"),
            ({"CONFIG": "/etc/passwd"},
             "CONFIG=/etc/passwd: is no kernel configuration"),
            ({"CONFIG": str(TOP / "configs/base.config"), "LOCALVERSION": "_"},
             "LOCALVERSION=_"),
            ({"CONFIG": str(TOP / "configs/base.config"), "LOCALMOD": "1",
              "LSMOD": "/dev/null"}, "lsmod lists no module")):
        yield (f"{' '.join(map('='.join, environment.items()))} is refused: "
               f"{reason}", wrong_is_refused, environment, reason)
    yield ("without the running kernel's configuration it says where it "
           "looked", without_configuration)
