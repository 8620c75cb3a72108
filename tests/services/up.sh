#!/usr/bin/env bash
# Sets up, from bare Debian 12 and as root, the heavy servers that the tests marked `services` talk to, on 127.0.0.1:
#   tap    a Virtual Observatory TAP service (DaCHS on PostgreSQL) on :8080 with two databases' own table layouts
#   nginx  basic, bearer and 429 with Retry-After on :8091
#   stac   a STAC service on pgstac on :8092 with a published CMIP6 item
# Usage: tests/services/up.sh [tap] [nginx] [stac]   (all without arguments); then: pytest -m services tests/services
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${ASTROBIO_SERVICES:-/tmp/astrobio-services}
export DEBIAN_FRONTEND=noninteractive
mkdir -p "$work"

need() { dpkg -s "$@" >/dev/null 2>&1 || apt-get install -y -o DPkg::Lock::Timeout=180 --no-install-recommends "$@" >"$work/apt.log" 2>&1 || { tail -5 "$work/apt.log"; exit 1; }; }

postgres() {
  need postgresql-15 postgresql-15-pgsphere postgresql-15-q3c
  pg_ctlcluster 15 main start 2>/dev/null || true
  until pg_isready -q; do sleep 1; done
}

tap() {
  postgres
  printf '[web]\nbindAddress: 127.0.0.1\nserverPort: 8080\nserverURL: http://127.0.0.1:8080\n[ivoa]\nauthority: x-astrobio-test\n[async]\ndefaultMAXREC: 20000\n' >/etc/gavo.rc
  need gavodachs2-server stilts
  for name in exo exoplanet; do
    install -d -o dachsroot -g gavo "/var/gavo/inputs/$name"
    install -o dachsroot -g gavo -m 644 "$here/$name"/* "/var/gavo/inputs/$name/"
  done
  su dachsroot -c "dachs imp exo/q && dachs imp exoplanet/q && dachs imp //tap && dachs imp //obscore && dachs serve restart"
  wait_for http://127.0.0.1:8080/tap/availability
}

nginx_up() {
  need nginx-light
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

for name in "${@:-tap nginx stac}"; do
  for one in $name; do
    case $one in tap) tap ;; nginx) nginx_up ;; stac) stac ;; *) echo "unknown: $one"; exit 2 ;; esac
  done
done
