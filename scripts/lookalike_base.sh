#!/usr/bin/env bash
# Make look-alikes of the two Python base images on a machine that cannot pull images, so that `make images` runs there. Root.
#   scripts/lookalike_base.sh [NAME]       NAME defaults to ndml-lookalike; gives NAME/python:3.11-slim-bookworm and NAME/python:3.11-bookworm
# They are Debian from this machine's own apt set-up, the Python that PYTHON names (default: python3.11), and, in the second, which
# only builds: a compiler, this machine's CA certificates, its pip set-up and the wheels that the set-up finds on disk.
# Needs docker with a daemon and debootstrap (Debian: apt-get install debootstrap). WORK names the directory for scratch files.
set -euo pipefail

name=${1:-ndml-lookalike}
python=${PYTHON:-python3.11}
suite=bookworm
for tool in docker debootstrap "$python"; do
  command -v "$tool" >/dev/null || { echo "lookalike_base: $tool is not installed" >&2; exit 1; }
done
docker version >/dev/null 2>&1 || { echo "lookalike_base: no docker daemon answers; scripts/dockerd_in_vm.sh starts one" >&2; exit 1; }
work=$(mktemp -d "${WORK:-${TMPDIR:-/tmp}}/lookalike.XXXXXX")
root=$work/root
cleanup() { mountpoint -q "$root/proc" && umount "$root/proc"; rm -rf "$work"; }
trap cleanup EXIT

mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' | awk -v suite="$suite" '$2 == suite {print $1; exit}')
[ -n "$mirror" ] || { echo "lookalike_base: apt on this machine has no source for Debian $suite" >&2; exit 1; }

echo "[1/4] Debian $suite"
libraries=ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,netbase,tzdata,zlib1g
debootstrap --variant=minbase --include="$libraries" "$suite" "$root" "$mirror" >"$work/debootstrap.log" 2>&1 ||
  { tail -5 "$work/debootstrap.log" >&2; exit 1; }

echo "[2/4] $("$python" --version), without tests and caches, as the official image has it"
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
mkdir -p "$root/usr/local/lib" "$root/usr/local/bin" "$root/usr/local/include"
cp -a "$prefix"/lib/libpython3*.so* "$root/usr/local/lib/" 2>/dev/null || true
cp -a "$prefix/include/python3.11" "$root/usr/local/include/"
(cd "$prefix/lib" && tar --exclude=site-packages --exclude=test --exclude=tests --exclude=idle_test --exclude=__pycache__ \
  --exclude='*.a' -cf - python3.11) | tar -C "$root/usr/local/lib" -xf -
mkdir -p "$root/usr/local/lib/python3.11/site-packages"
cp -a "$prefix/bin/python3.11" "$root/usr/local/bin/"
ln -sf python3.11 "$root/usr/local/bin/python3"
ln -sf python3.11 "$root/usr/local/bin/python"
strip --strip-all "$root/usr/local/bin/python3.11"
find "$root/usr/local/lib" -name '*.so*' -type f -exec strip --strip-unneeded {} +
chroot "$root" ldconfig
chroot "$root" python -m ensurepip --default-pip >/dev/null 2>&1
find "$root/usr/local" -name __pycache__ -type d -prune -exec rm -rf {} +

tidy() {
  rm -rf "$root"/usr/share/{doc,man,info,locale,lintian}/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb \
    "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root/var/log/apt"
}
into() {
  tar -C "$root" --exclude=./proc/* --exclude=./sys/* --exclude=./dev/* -cf - . |
    docker import --change 'CMD ["python3"]' --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
      --change 'ENV LANG=C.UTF-8' "${@:2}" - "$1" >/dev/null
}

echo "[3/4] $name/python:3.11-slim-$suite"
tidy
into "$name/python:3.11-slim-$suite"

echo "[4/4] $name/python:3.11-$suite: with a compiler, and this machine's certificates and pip set-up"
[ -f /etc/resolv.conf ] && cp -L /etc/resolv.conf "$root/etc/resolv.conf"
mount -t proc proc "$root/proc"
{ chroot "$root" apt-get update -q && DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -y -q --no-install-recommends gcc libc6-dev; } \
  >"$work/apt.log" 2>&1 || { tail -5 "$work/apt.log" >&2; exit 1; }
umount "$root/proc"
tidy
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
# Settings that pip takes from files and from the environment alike, less what lies on this machine's disk and is not copied.
pip_settings=$("$python" -m pip config list | sed -nE "s/^(global|:env:)\.(index-url|extra-index-url|cert|default-timeout|trusted-host)='(.*)'$/\2 = \3/p" |
  grep -v 'file://' || true)
wheels=$("$python" -m pip config list | sed -nE "s/^(global|:env:)\.find-links='(.*)'$/\2/p" | head -1)
{ echo '[global]'; sort -u -t= -k1,1 <<<"$pip_settings"; [ -d "$wheels" ] && echo 'find-links = /opt/wheels'; } >"$root/etc/pip.conf"
if [ -d "$wheels" ]; then mkdir -p "$root/opt/wheels" && cp "$wheels"/*.whl "$root/opt/wheels/"; fi
into "$name/python:3.11-$suite" --change 'ENV PIP_DISABLE_PIP_VERSION_CHECK=1'
docker image ls --format '{{.Repository}}:{{.Tag}}  {{.Size}}' | grep "^$name/"
echo "use them: make images REGISTRY=$name/"
