# Sourced by the shell scripts here: where things are, and how to say them.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034
build=$top/build
# Of the make that calls: with its -s a kernel build would show no progress.
unset MAKEFLAGS MFLAGS

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

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

# fetch PACKAGE DIR [ARCH]: unpacks a Debian package into DIR, without installing
# it. Says what it got in DIR/version.
fetch() {
	local package=$1 dir=$2
	local apt=(apt-get -qq -o APT::Sandbox::User=root)
	if [ -n "${3:-}" ]; then
		# Lists of its own: the machine has only its own architecture's.
		local state=$build/apt-$3
		mkdir -p "$state"
		: >"$state/status"
		apt+=(-o "APT::Architecture=$3" -o "APT::Architectures=$3"
			-o "Dir::State=$state" -o "Dir::State::status=$state/status"
			-o "Dir::Cache=$state")
		"${apt[@]}" update || die "cannot get Debian's list of $3 packages"
	else
		apt_knows "to find Debian's $package" "$package"
	fi
	rm -rf "$dir"
	mkdir -p "$dir"
	(cd "$dir" && "${apt[@]}" download "$package") ||
		die "cannot get Debian's package $package (apt-get download $package)"
	dpkg-deb -f "$dir"/*.deb Version >"$dir/version"
	dpkg-deb -x "$dir"/*.deb "$dir"
	rm "$dir"/*.deb
	say "got Debian's $package $(cat "$dir/version")"
}

# base_tree DIR: a work tree of build/linux at the tag base, if it is not there, or
# belongs to a build/linux that was made anew since.
base_tree() {
	[ "$(git -C "$1" rev-parse --show-toplevel 2>/dev/null)" != "$1" ] ||
		return 0
	rm -rf "$1"
	git -C "$build/linux" worktree prune
	"$top/scripts/step" "$build/logs/worktree.log" 1 "unpacking base" \
		git -C "$build/linux" worktree add -q --detach "$1" base
}

# Two builds at a time take longer than one after the other, and a machine may
# hold several clones: one build a machine, from here to the script's end.
lock_build() {
	local lock=${TMPDIR:-/tmp}/kbuild.lock
	[ -e "$lock" ] || : >"$lock"
	exec 9<"$lock"	# somebody else's may be locked, but not written
	flock -n 9 || { say "waiting for another kernel build"; flock 9; }
}

# The content of patches/, as one checksum.
patches_sum() {
	find "$top/patches" -name '[0-9]*.patch' ! -name '0000-*' \
		-exec sha256sum {} + 2>/dev/null | sed "s, $top/, ," | sort |
		sha256sum | cut -d ' ' -f 1
}
