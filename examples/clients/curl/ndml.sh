#!/bin/sh
# Two memories in, a search, a chat, and an error with its reason, by curl and sed. Settings by environment: see README.md.
set -eu

url=${NDML_URL:-http://127.0.0.1:7780}
user=${NDML_USER:-ann}
timeout=${NDML_TIMEOUT_S:-10}
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# call SECONDS PATH JSON: the answer's lines as they come. The server gives up at the deadline that it is told, curl a second later.
call() {
  seconds=$1 path=$2 body=$3
  set -- --silent --show-error --no-buffer --globoff --max-time "$(awk "BEGIN { print $seconds + 1 }")" --write-out '\nstatus %{http_code}\n'
  if [ -n "${NDML_TOKEN:-}" ]; then set -- "$@" --header "authorization: Bearer $NDML_TOKEN"; fi
  if [ -n "${NDML_CA:-}" ]; then set -- "$@" --cacert "$NDML_CA"; fi
  curl "$@" --header 'content-type: application/json' --header "ndml-timeout-ms: $(awk "BEGIN { printf \"%d\", $seconds * 1000 + 0.999 }")" \
    --data-binary "$body" "$url$path"
}

# ask PATH JSON: leaves the answer in $answer.
ask() {
  call "$timeout" "$1" "$2" >"$answer" || { echo "error: no answer from $url$1 within $timeout s" >&2; exit 1; }
}

# need_success: ends the program with the reason where the call was refused, or its stream broke off.
need_success() {
  if ! grep -q '^status 2' "$answer" || grep -q '^{"error":' "$answer"; then
    echo "error: $(strings code <"$answer") $(strings reason <"$answer") $(strings detail <"$answer")" >&2
    exit 1
  fi
}

# strings NAME: the values of the string fields of that name, a line each, escapes left as they are.
strings() {
  { grep -oE "\"$1\": *\"([^\"\\\\]|\\\\.)*\"" || true; } | sed 's/^"[^"]*": *"//; s/"$//'
}

# The same request_id writes once, so this program may run again.
ask /v1/memories '{"request_id": "lisbon", "memory": {"scope": {"user": "'"$user"'"}, "text": "I live in Lisbon."}}'
need_success
echo "added $(strings trace_id <"$answer")"
ask /v1/memories '{"request_id": "pixel", "memory": {"scope": {"user": "'"$user"'"}, "text": "My dog Pixel hates the vacuum cleaner."}}'
need_success
echo "added $(strings trace_id <"$answer")"
# With the token the search sees the write, whichever copy answers.
seen=$(strings consistency_token <"$answer")

ask /v1/memories:search '{"scope": {"user": "'"$user"'"}, "text": "Where do I live?", "k": 2, "consistency_token": "'"$seen"'"}'
need_success
strings text <"$answer" | sed 's/^/found /'

# A stream is one JSON object a line, printed as it comes; it lasts as long as the answer and gets six times a call's deadline.
printf 'chat: '
question='{"scope": {"user": "'"$user"'"}, "messages": [{"role": "ROLE_USER", "content": "Where do I live?"}]}'
call "$(awk "BEGIN { print 6 * $timeout }")" /v1/chat "$question" | tee "$answer" | while IFS= read -r line; do
  printf '%s' "$(printf '%s\n' "$line" | strings delta)"
done
echo
need_success
strings text <"$answer" | sed 's/^/cited /'

# An error is a problem document: code, reason, and each field that breaks its rule.
ask /v1/memories:search '{"scope": {"user": "'"$user"'"}, "text": "x", "k": -1}'
echo "refused: $(strings code <"$answer") $(strings reason <"$answer") $(strings field <"$answer"): $(strings description <"$answer")"
