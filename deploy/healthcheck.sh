#!/bin/bash
# Asks Weir's ops listener in this container how it is: `healthcheck live`, or `healthcheck ready` for a gateway that
# should only get requests while it can accept them. In bash, because the image has no HTTP client.
set -eu
exec 3<>"/dev/tcp/127.0.0.1/${WEIR_OPS_LISTEN##*:}"
printf 'GET /%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1" >&3
read -r _ status _ <&3
[[ $status == 200 ]]
