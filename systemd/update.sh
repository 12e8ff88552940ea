# Shared by install.sh and the maintainer script of the Debian package, which gets it copied in: what an update does with
# units that run.

# reopen_sockets: systemd opens the sockets of a unit when the unit starts, which it refuses while the service runs. So
# those that an update has added are opened once both have been stopped. Fails where none is missing.
reopen_sockets() {
  sockets=tsflannel-docker-plugin.socket
  systemctl --quiet is-active "$sockets" && ! grep -q ' /run/docker/plugins/tsflannel-ipvlan\.sock$' /proc/net/unix || return 1
  state=$(systemctl is-active tsflanneld.service) || true
  # In one step: whoever asks meanwhile would have the sockets start the service again.
  systemctl stop "$sockets" tsflanneld.service
  systemctl start "$sockets" || true
  case $state in
    active | activating | reloading) systemctl --no-block start tsflanneld.service ;;
  esac
}
