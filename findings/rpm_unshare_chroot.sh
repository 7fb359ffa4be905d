#!/bin/bash
# rpm 4.20 runs no scriptlet in a chroot whose root is not a mount point.
#
# Guess: `chroot DIR rpm -i PACKAGE` runs the package's scriptlets, as rpm 4.18 does.
# Seen (Debian 13: rpm 4.20.1): the plugin "unshare" makes / private before each scriptlet;
# mount(2) answers EINVAL where / is not a mount point, and the package is not installed. With the
# directory bind-mounted onto itself it is.
# Who would trip over it: image builds and tests that install packages in a plain directory.
set -euo pipefail
root=$(mktemp -d)
trap 'umount -R "$root/host/proc" "$root/host" 2>/dev/null || :; umount -R "$root/host" 2>/dev/null || :; rm -rf "$root"' EXIT
apt-get install -y -q mmdebstrap >/dev/null
mmdebstrap --quiet --variant=apt --include=rpm trixie "$root/host" >/dev/null
version=$(chroot "$root/host" dpkg-query -Wf '${Version}' rpm)
case $version in 4.20.*) ;; *) echo "rpm is $version, not 4.20: look again"; exit 2 ;; esac

mkdir -p "$root/host/etc/rpm" "$root/host/build"
echo '%_dbpath /usr/lib/sysimage/rpm' >"$root/host/etc/rpm/macros"
cat >"$root/host/build/one.spec" <<SPEC
Name: one
Version: 1
Release: 1
Summary: a scriptlet
License: MIT
BuildArch: noarch
AutoReqProv: no
%description
a scriptlet
%pre
exit 0
%files
SPEC
chroot "$root/host" rpmbuild -bb --define '_topdir /build' /build/one.spec >/dev/null 2>&1
install() { chroot "$root/host" rpm -i --nodeps /build/RPMS/noarch/one-1-1.noarch.rpm 2>&1; }
plain=$(install && echo installed || echo refused)
mount --bind "$root/host" "$root/host"
mounted=$(install && echo installed || echo refused)
echo "rpm $version, / a plain directory: $plain"
echo "rpm $version, / a mount point: $mounted"
[[ $plain == *refused ]] && [[ $plain == *"mount propagation"* ]] && [[ $mounted == *installed ]]
