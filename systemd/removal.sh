# Shared by uninstall.sh and the maintainer scripts of the Debian package, which get it copied in: what a removal undoes,
# and what it leaves to whoever still needs it. "destdir" is put before every path.
drop_in=/etc/systemd/system/docker.service.d/tsflannel.conf

say() {
  echo "tsflannel: $*"
}

# undo_docker: Docker must start without subnet.env. The marks are those of src/docker/drop-in.ts.
undo_docker() {
  [ -e "$destdir$drop_in" ] || return 0
  if grep -q '^# Written by tsflannelctl docker enable' "$destdir$drop_in"; then
    rm -f "$destdir$drop_in"
    say "removed $destdir$drop_in: Docker takes addresses of its own from its next start on"
  elif grep -qF '# To use it:  /etc/systemd/system/docker.service.d/tsflannel.conf' "$destdir$drop_in"; then
    mv -f "$destdir$drop_in" "$destdir$drop_in.saved"
    say "renamed $destdir$drop_in to tsflannel.conf.saved: Docker takes addresses of its own from its next start on"
  fi
  rmdir --ignore-fail-on-non-empty "$(dirname "$destdir$drop_in")"
}

# running_daemon: names a flanneld or tsflanneld of this network namespace, if one runs.
running_daemon() {
  for process in /proc/[0-9]*; do
    name=
    { read -r name <"$process/comm"; } 2>/dev/null || continue
    case $name in
      flanneld | tsflanneld) ;;
      node* | MainThread)
        tr '\0' '\n' <"$process/cmdline" 2>/dev/null | grep -q '/tsflanneld\.js$' || continue
        name=tsflanneld
        ;;
      *) continue ;;
    esac
    [ "$(readlink "$process/ns/net")" = "$(readlink /proc/self/ns/net)" ] || continue
    echo "$name runs (process ${process#/proc/})"
    return
  done
}

# docker_reads FILE: names the unit file by which Docker does not start without FILE, if there is one.
docker_reads() {
  for directory in /etc /run /usr/local/lib /usr/lib /lib; do
    for unit in "$destdir$directory"/systemd/system/docker.service "$destdir$directory"/systemd/system/docker.service.d/*.conf; do
      if grep -qs "^EnvironmentFile=$1\$" "$unit"; then
        echo "Docker does not start without it ($unit)"
        return
      fi
    done
  done
}

# purge_files: removes what the daemon wrote, unless somebody lives on it.
purge_files() {
  user=
  [ -n "$destdir" ] || user=$(running_daemon)
  if [ -z "$user" ]; then
    rm -rf "$destdir/run/flannel/tsflanneld" "$destdir/run/flannel/tsflanneld.sock" "$destdir/var/lib/tsflannel"
  elif [ -e "$destdir/var/lib/tsflannel" ]; then
    say "$destdir/var/lib/tsflannel stays: $user"
  fi
  for file in /run/flannel/subnet.env /run/docker_opts.env; do
    [ -e "$destdir$file" ] || continue
    reason=$user
    [ -n "$reason" ] || reason=$(docker_reads "$file")
    if [ -z "$reason" ]; then
      rm -f "$destdir$file"
    else
      say "$destdir$file stays: $reason"
    fi
  done
  [ ! -d "$destdir/run/flannel" ] || rmdir --ignore-fail-on-non-empty "$destdir/run/flannel"
}

# tell_docker_networks: which of Docker's networks are left without their driver.
tell_docker_networks() {
  [ -z "$destdir" ] && command -v docker >/dev/null || return 0
  ids=$(timeout 5 docker network ls --quiet 2>/dev/null) || return 0
  format='{{if or (eq .Driver "tsflannel") (eq .IPAM.Driver "tsflannel") (eq .IPAM.Driver "tsflannel-ipvlan")}} {{.Name}}{{end}}'
  # shellcheck disable=SC2086 # one word each
  networks=$(timeout 5 docker network inspect --format "$format" $ids 2>/dev/null | tr -d '\n')
  [ -n "$networks" ] || return 0
  say "Docker still has networks of this driver:$networks. From now on each of its starts takes a quarter of a minute more for"
  say 'each of them. To get rid of them: docker rm --force their containers, then docker network rm NAME, which says that the'
  say 'plugin is not found and removes the network all the same'
}

# tell_what_stays: what a removal does not touch, and why.
tell_what_stays() {
  for device in "$destdir"/sys/class/net/flannel*; do
    [ -e "$device" ] || continue
    reason=$(running_daemon)
    say "devices, routes and rules of the overlay stay: ${reason:-tsflannelctl cleanup has not been run; they end with the next boot}"
    break
  done
  if [ -e "$destdir/etc/systemd/system/etcd-single.service" ]; then
    say 'etcd-single.service and its data stay: they hold the configuration and the leases of all hosts'
  fi
}
