#!/bin/sh
# Removes what install.sh installed, and what tsflannelctl docker enable did. The programs stay, and so does any etcd.
set -eu

usage() {
  cat <<'USAGE'
Usage: uninstall.sh [--purge]

Stops and disables the units and removes them. Docker keeps running; restart it to make it use addresses of its own.
  --purge   also remove /etc/default/tsflanneld and what the daemon wrote, unless somebody uses it
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
. "$(dirname -- "$0")/removal.sh"
units='tsflannel-docker-plugin.socket tsflannel-docker.path tsflannel-docker.service tsflanneld.service'
is_live=
[ -n "$destdir" ] || [ ! -d /run/systemd/system ] || is_live=yes

take() {
  [ -e "$destdir$1" ] || return 0
  rm -f "$destdir$1"
  echo "removed $destdir$1"
  rmdir --ignore-fail-on-non-empty "$(dirname "$destdir$1")"
}

tell_docker_networks
for unit in $units; do
  [ -e "$destdir/etc/systemd/system/$unit" ] || continue
  [ -z "$is_live" ] || systemctl --quiet disable --now "$unit"
  take "/etc/systemd/system/$unit"
done
undo_docker
take /etc/systemd/network/10-tsflannel.network
take /etc/systemd/network/10-tsflannel.link
take /etc/systemd/networkd.conf.d/tsflannel.conf
take /etc/NetworkManager/conf.d/tsflannel.conf
tell_what_stays
if [ -n "$purge" ]; then
  take /etc/default/tsflanneld
  purge_files
fi
[ -z "$is_live" ] || systemctl daemon-reload
