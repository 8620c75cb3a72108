#!/usr/bin/env bash
# Stops what up.sh started.
work=${ASTROBIO_SERVICES:-/tmp/astrobio-services}
for pid in "$work/nginx/nginx.pid" "$work/stac.pid"; do [ -f "$pid" ] && kill "$(cat "$pid")" 2>/dev/null; rm -f "$pid"; done
command -v dachs >/dev/null && su dachsroot -c "dachs serve stop"
pg_ctlcluster 15 main stop 2>/dev/null
exit 0
