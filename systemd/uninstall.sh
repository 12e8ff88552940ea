#!/bin/sh
# Removes what install.sh installed. The programs, and etcd's data in /var/lib/private/etcd-single, stay.
set -eu

usage() {
  cat <<'USAGE'
Usage: uninstall.sh [--purge]

Stops and disables the units and removes them. Docker keeps running; restart it to make it use addresses of its own.
  --purge   also remove /etc/default/tsflanneld, /run/flannel and the saved state in /var/lib/tsflannel
Environment: DESTDIR is put before every path that is removed.
USAGE
}

purge=
for argument; do
  case $argument in
    --purge) purge=yes ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
done

destdir=${DESTDIR:-}
units='tsflannel-docker.path tsflannel-docker.service tsflanneld.service etcd-single.service'
is_live=
[ -n "$destdir" ] || [ ! -d /run/systemd/system ] || is_live=yes

take() {
  [ -e "$destdir$1" ] || return 0
  rm -f "$destdir$1"
  echo "removed $destdir$1"
  rmdir --ignore-fail-on-non-empty "$(dirname "$destdir$1")"
}

for unit in $units; do
  [ -e "$destdir/etc/systemd/system/$unit" ] || continue
  [ -z "$is_live" ] || systemctl --quiet disable --now "$unit"
  take "/etc/systemd/system/$unit"
done
take /etc/systemd/system/docker.service.d/tsflannel.conf
take /etc/systemd/network/10-tsflannel.network
take /etc/systemd/network/10-tsflannel.link
take /etc/systemd/networkd.conf.d/tsflannel.conf
take /etc/NetworkManager/conf.d/tsflannel.conf
if [ -n "$purge" ]; then
  take /etc/default/tsflanneld
  rm -rf "$destdir/run/flannel" "$destdir/run/docker_opts.env" "$destdir/var/lib/tsflannel"
fi
[ -z "$is_live" ] || systemctl daemon-reload
