#!/bin/bash
# s3.sh start|stop FOLDER WEED N: SeaweedFS with S3 on 127.0.0.1, port 18433 + N; checks signatures (user test, key
# testaccess). Each process of a test run has its own N, as two servers cannot have one port.
set -euo pipefail
WHAT=$1; W=$2; WEED=${3:-weed}; N=${4:-0}
if [ "$WHAT" = stop ]; then kill -9 "$(cat "$W/weed.pid")"; exit 0; fi
mkdir -p "$W/data"
cat > "$W/s3.json" <<J
{"identities": [{"name": "test", "credentials": [{"accessKey": "testaccess", "secretKey": "testsecret1"}],
                 "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
J
"$WEED" -logdir="$W" server -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir="$W/data" -master.port=$((19433 + N)) -volume.port=$((18480 + N)) \
  -filer -filer.port=$((18988 + N)) -s3 -s3.port=$((18433 + N)) -s3.config="$W/s3.json" -master.volumeSizeLimitMB=256 -volume.max=20 \
  -master.volumePreallocate=false -master.telemetry=false -s3.port.iceberg=0 -s3.port.lance=0 >"$W/weed.log" 2>&1 &
echo $! > "$W/weed.pid"
for _ in $(seq 1 600); do
  kill -0 "$(cat "$W/weed.pid")" || break
  curl -s -o /dev/null "http://127.0.0.1:$((18433 + N))/" && exit 0
  sleep 0.1
done
tail "$W/weed.log"; exit 1
