# SPDX-License-Identifier: GPL-2.0-only
# Sourced by the shell scripts here: where things are, and how to say them.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Of the make that calls: with its -s a kernel build would show no progress.
unset MAKEFLAGS MFLAGS

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# The kernel that is worked on, see rig/kernels: the first, or KERNEL=. What is
# made of the first is in build/, what of another one in build/<kernel>/.
kernels=() package=
while read -r name of from more; do
	case $name in '#'* | '') continue ;; esac
	kernels+=("$name")
	kernel=${KERNEL:-${kernels[0]}}
	# shellcheck disable=SC2034
	[ "$name" != "$kernel" ] || package=$of suite=$from others=$more
done <"$top/rig/kernels"
[ -n "$package" ] || die "no KERNEL=$kernel: there are ${kernels[*]} (rig/kernels)"
build_of() {
	say "$top/build$([ "$1" = "${kernels[0]}" ] || say "/$1")"
}
build=$(build_of "$kernel")
linux=$build/linux
series=$top/patches/$kernel
# As one would type them in the repository, and after a verb of make
# shellcheck disable=SC2034
shown_linux=${linux#"$top/"} shown_series=${series#"$top/"}
# shellcheck disable=SC2034
verb_kernel=${KERNEL:+ KERNEL=$KERNEL}

# as_root WHY COMMAND...: runs the command as root, or says how a person could.
as_root() {
	local why=$1
	shift
	if [ "$(id -u)" = 0 ]; then
		say "$why: $*"
		"$@"
	elif command -v sudo >/dev/null; then
		say "$why: sudo $*"
		sudo "$@"
	else
		die "$why: needs root, and there is no sudo. Run as root: $*"
	fi
}

# apt_knows WHY PACKAGE...: brings apt's lists up to date if they lack one of them.
apt_knows() {
	local why=$1
	shift
	apt-cache show "$@" >/dev/null 2>&1 || as_root "$why" apt-get -q update
}

# An apt that asks Debian alone, whatever sources the machine has. Sets `apt_options`.
#
# own_apt NAME OPTION...: with a state in build/apt-NAME
own_apt() {
	local state=$top/build/apt-$1
	shift
	mkdir -p "$state"
	: >"$state/status"
	apt_options=(-o APT::Sandbox::User=root -o "Dir::State=$state"
		-o "Dir::State::status=$state/status" -o "Dir::Cache=$state" "$@")
}

# suite_apt SUITE: with nothing but this suite, or the machine's own apt for '-'.
# False if the suite is not to be had.
suite_apt() {
	local list=$top/build/apt-$1/sources.list
	apt_options=(-o APT::Sandbox::User=root)
	[ "$1" != - ] || return 0
	own_apt "$1" -o "Dir::Etc::sourcelist=$list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
	say "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
		"http://deb.debian.org/debian $1 main" >"$list"
	apt-get -qq "${apt_options[@]}" update
}

# fetch PACKAGE DIR [ARCH]: unpacks a Debian package into DIR, without installing
# it. Says what it got in DIR/version. With apt_options, if there are any.
fetch() {
	local package=$1 dir=$2
	local apt_options=("${apt_options[@]}")
	if [ -n "${3:-}" ]; then
		# Lists of its own: the machine has only its own architecture's.
		own_apt "$3" -o "APT::Architecture=$3" -o "APT::Architectures=$3"
		apt-get -qq "${apt_options[@]}" update ||
			die "cannot get Debian's list of $3 packages"
	elif [ ${#apt_options[@]} = 0 ]; then
		suite_apt -
		apt_knows "to find Debian's $package" "$package"
	fi
	rm -rf "$dir"
	mkdir -p "$dir"
	(cd "$dir" && apt-get -qq "${apt_options[@]}" download "$package") ||
		die "cannot get Debian's package $package (apt-get download $package)"
	dpkg-deb -f "$dir"/*.deb Version >"$dir/version"
	dpkg-deb -x "$dir"/*.deb "$dir"
	rm "$dir"/*.deb
	say "got Debian's $package $(cat "$dir/version")"
}
apt_options=()

# series_patches FOLDER: the patches there, in their order, without the cover letter.
series_patches() {
	find "$1" -name '[0-9]*.patch' ! -name '0000-*' 2>/dev/null | sort
}

# The content of the series' folder in patches/, as one checksum.
patches_sum() {
	series_patches "$series" | xargs -r -d '\n' sha256sum | sed "s, $series/, patches/," | sort |
		sha256sum | cut -d ' ' -f 1
}
