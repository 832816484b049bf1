#!/bin/sh
# Connects a camera or a file, describes it, and prints what happens, by REST: see examples/README.md.
set -eu
server=$1 url=$2
api() { path=$1; shift; curl -sS --fail-with-body -H "x-access-token: $SIGHTLINE_API_KEY" -H "content-type: application/json" "$server$path" "$@"; }
stream=$(api /rtstream -d "{\"url\": \"$url\"}" | grep -o 'rts-[0-9a-f-]*' | head -n 1)
wanted='{"extraction_type": "time", "extraction_config": {"time": 5, "frame_count": 2}, "prompt": "Describe activity"}'
index=$(api "/rtstream/$stream/index/scene" -d "$wanted" | grep -o 'idx-[0-9a-f-]*' | head -n 1)
while sleep 1; do
    api "/rtstream/$stream/index/scene/$index?page_size=1" | grep -o '"description": *"[^"]*"' || true
done
