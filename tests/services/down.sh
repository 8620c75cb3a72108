#!/usr/bin/env bash
# Stops what up.sh started; `down.sh --data` also removes its databases and files. Packages stay installed.
work=${ASTROBIO_SERVICES:-/tmp/astrobio-services}

stop() {  # PID FILE: end that process and wait for it
  [ -f "$1" ] || return 0
  pid=$(cat "$1")
  kill "$pid" 2>/dev/null
  for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  rm -f "$1"
}

stop "$work/nginx/nginx.pid"
stop "$work/stac.pid"
[ -e "$work/dachs.started" ] && su dachsroot -c "dachs serve stop" 2>/dev/null
if [ "${1:-}" = --data ] && pg_isready -q; then
  su postgres -c "dropdb --if-exists --force stac"
  [ -e "$work/dachs.started" ] && su dachsroot -c "for table in eso exo exoplanet; do dachs drop -f \$table/q; done" >/dev/null 2>&1
  rm -rf /var/gavo/inputs/exo /var/gavo/inputs/exoplanet /var/gavo/inputs/eso
fi
[ -e "$work/postgres.started" ] && pg_ctlcluster 15 main stop -m fast
rm -f "$work/dachs.started" "$work/postgres.started"
[ "${1:-}" = --data ] && rm -rf "$work"
exit 0
