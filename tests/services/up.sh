#!/usr/bin/env bash
# Sets up, from bare Debian 12 and as root, the heavy servers that the tests marked `services` talk to, on 127.0.0.1:
#   tap    a Virtual Observatory TAP service (DaCHS on PostgreSQL) on :8080 with three databases' own table layouts
#   nginx  basic, bearer and 429 with Retry-After on :8091
#   stac   a STAC service on pgstac on :8092 with a published CMIP6 item
# Usage: tests/services/up.sh [tap] [nginx] [stac]   (all without arguments); then: pytest -m services tests/services
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${ASTROBIO_SERVICES:-/tmp/astrobio-services}
export DEBIAN_FRONTEND=noninteractive
mkdir -p "$work"

[ "$(id -u)" = 0 ] || { echo "up.sh installs Debian packages and starts servers: run it as root"; exit 2; }
grep -q '^ID=debian' /etc/os-release && grep -q '^VERSION_ID="12"' /etc/os-release ||
  echo "up.sh is written for Debian 12, with PostgreSQL 15; it may fail here"

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}\n' "$@" 2>/dev/null | grep -cx installed)" = $# ]; }

need() {
  installed "$@" && return
  echo "installing $*"
  [ -e "$work/apt.updated" ] || apt-get update -q >"$work/apt.log" 2>&1 || true
  touch "$work/apt.updated"
  apt-get install -y -o DPkg::Lock::Timeout=180 --no-install-recommends "$@" >>"$work/apt.log" 2>&1 ||
    { tail -5 "$work/apt.log"; exit 1; }
}

postgres() {
  installed postgresql-15 || touch "$work/postgres.started"  # the package starts it
  need postgresql-15 postgresql-15-pgsphere postgresql-15-q3c
  # PostgreSQL 15.20 refuses an operator whose commutator has another one already; pgSphere's two aliases for DaCHS do.
  sed -i '/^-- a minimal set of backwards-compatible/,/^-- debugging/{/COMMUTATOR/d;/NEGATOR/d}' \
    /usr/share/postgresql/15/extension/pg_sphere--1.2.0.sql
  if ! pg_isready -q; then
    pg_ctlcluster 15 main start
    touch "$work/postgres.started"
  fi
  for _ in $(seq 60); do pg_isready -q && return; sleep 1; done
  echo "PostgreSQL is not up after 60 s"; exit 1
}

tap() {
  postgres
  [ ! -e /etc/gavo.rc ] || grep -q x-astrobio-test /etc/gavo.rc ||
    { echo "/etc/gavo.rc is that of a DaCHS of this machine's own; up.sh would overwrite it"; exit 1; }
  cat >/etc/gavo.rc <<'END'
[web]
bindAddress: 127.0.0.1
serverPort: 8080
serverURL: http://127.0.0.1:8080
[ivoa]
authority: x-astrobio-test
[async]
defaultMAXREC: 20000
END
  need gavodachs2-server stilts
  for name in exo exoplanet eso; do
    install -d -o dachsroot -g gavo "/var/gavo/inputs/$name"
    install -o dachsroot -g gavo -m 644 "$here/$name"/* "/var/gavo/inputs/$name/"
  done
  touch "$work/dachs.started"
  for table in //obscore exo/q exoplanet/q eso/q //tap; do logged "dachs imp $table"; done
  logged "dachs serve restart"
  wait_for http://127.0.0.1:8080/tap/availability
}

logged() { su dachsroot -c "$1" >>"$work/dachs.log" 2>&1 || { echo "failed: $1"; tail -5 "$work/dachs.log"; exit 1; }; }

nginx_up() {
  if ! installed nginx-light; then
    need nginx-light
    service nginx stop >/dev/null 2>&1 || true  # the package may start a server of its own on port 80
  fi
  root="$work/nginx"; mkdir -p "$root"
  printf 'reader:%s\n' "$(openssl passwd -apr1 services-password)" >"$root/users"
  printf '[{"pl_name": "TRAPPIST-1 e"}]\n' >"$root/planets.json"
  cp "$here/nginx.conf" "$root/nginx.conf"
  [ -f "$root/nginx.pid" ] && { kill "$(cat "$root/nginx.pid")" 2>/dev/null; sleep 1; }
  nginx -p "$root" -c "$root/nginx.conf"
  wait_for http://127.0.0.1:8091/plain.json
}

stac() {
  postgres
  need postgresql-15-postgis-3
  [ -x "$work/stac/bin/python" ] || python3 -m venv "$work/stac"
  "$work/stac/bin/pip" install -q "stac-fastapi-pgstac[server]" "pypgstac[psycopg]"
  su postgres -c "psql -qc \"ALTER USER postgres PASSWORD 'services'\"; createdb stac" 2>/dev/null || true
  export PGHOST=127.0.0.1 PGPORT=5432 PGUSER=postgres PGPASSWORD=services PGDATABASE=stac
  "$work/stac/bin/pypgstac" migrate >/dev/null
  "$work/stac/bin/python" "$here/stac_load.py" "$here/../sources/recordings/esgf_stac_item.json" "$work"
  "$work/stac/bin/pypgstac" load collections "$work/collection.ndjson" --method upsert
  "$work/stac/bin/pypgstac" load items "$work/items.ndjson" --method upsert
  [ -f "$work/stac.pid" ] && { kill "$(cat "$work/stac.pid")" 2>/dev/null || true; }
  POSTGRES_USER=postgres POSTGRES_PASS=services POSTGRES_PASSWORD=services POSTGRES_HOST=127.0.0.1 POSTGRES_HOST_READER=127.0.0.1 \
    POSTGRES_HOST_WRITER=127.0.0.1 POSTGRES_PORT=5432 POSTGRES_DBNAME=stac \
    nohup "$work/stac/bin/uvicorn" stac_fastapi.pgstac.app:create_app --factory --host 127.0.0.1 --port 8092 >"$work/stac.log" 2>&1 &
  echo $! >"$work/stac.pid"
  wait_for http://127.0.0.1:8092/
}

wait_for() {
  for _ in $(seq 60); do curl -sf -o /dev/null "$1" && { echo "up: $1"; return; }; sleep 1; done
  echo "not up after 60 s: $1"; exit 1
}

[ $# -gt 0 ] || set -- tap nginx stac
for one in "$@"; do
  case $one in tap) tap ;; nginx) nginx_up ;; stac) stac ;; *) echo "unknown: $one"; exit 2 ;; esac
done
