#!/bin/sh
# Installs the units of tsflannel for the programs beside this script (an npm installation or a clone).
# The Debian package brings its own; do not use both.
set -eu

usage() {
  cat <<'USAGE'
Usage: install.sh

Installs units, default settings and the files that keep network managers away. Run it again after an update: files
are replaced, except /etc/default/tsflanneld.
For Docker run tsflannelctl docker enable then.
Environment: DESTDIR is put before every path that is written; NODE is the Node to use.
USAGE
}

fail() {
  echo "install.sh: $*" >&2
  exit 1
}

for argument; do
  case $argument in
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
done

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
# shellcheck source=systemd/update.sh
. "$here/update.sh"
root=$(dirname -- "$here")
destdir=${DESTDIR:-}
node=$(command -v "${NODE:-node}") || fail 'cannot find node: install Node 20.19 or newer, or set NODE'
[ -f "$root/dist/bin/tsflanneld.js" ] || fail "cannot find $root/dist/bin/tsflanneld.js: run 'npm run build' first"
"$node" -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
  fail "cannot use $node, which is Node $("$node" --version): Node 20.19 or newer is needed"
for path in "$node" "$root"; do
  case $path in
    *[!A-Za-z0-9_./@+-]*) fail "cannot put $path into a unit: move it to a path of plain characters" ;;
    /home/* | /root/* | /run/user/* | /tmp/* | /var/tmp/*)
      [ -n "$destdir" ] || fail "cannot use $path: the service does not see home and temporary directories; install it elsewhere"
      ;;
  esac
done

# put MODE SOURCE TARGET, in one step so that nobody reads half a file.
put() {
  mkdir -p "$destdir$(dirname "$3")"
  sed -e "s|/usr/bin/tsflanneld|$node $root/dist/bin/tsflanneld.js|" \
    -e "s|/usr/bin/mk-docker-opts|$node $root/dist/bin/mk-docker-opts.js|" \
    -e "s|/usr/bin/tsflannelctl|$node $root/dist/bin/tsflannelctl.js|" "$here/$2" >"$destdir$3.new"
  chmod "$1" "$destdir$3.new"
  mv -f "$destdir$3.new" "$destdir$3"
  echo "installed $destdir$3"
}

for unit in tsflanneld.service tsflannel-docker.path tsflannel-docker.service tsflannel-docker-plugin.socket; do
  put 644 "$unit" "/etc/systemd/system/$unit"
done
put 644 network/10-tsflannel.network /etc/systemd/network/10-tsflannel.network
put 644 network/10-tsflannel.link /etc/systemd/network/10-tsflannel.link
put 644 network/networkd-foreign-routes.conf /etc/systemd/networkd.conf.d/tsflannel.conf
put 644 network/networkmanager.conf /etc/NetworkManager/conf.d/tsflannel.conf
[ -e "$destdir/etc/default/tsflanneld" ] || put 644 tsflanneld.default /etc/default/tsflanneld

if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  reopen_sockets || true
  echo 'next: edit /etc/default/tsflanneld, then: systemctl enable --now tsflanneld'
fi
