#!/usr/bin/env bash
# Asks a Weir that runs, by itself (`make up`) or behind a proxy, as its users do. Used by the Makefile.
#
#   deploy/try.sh health | webhook | profiles | compatibility | performance
#
# Read from the environment, else from .env: WEIR_URL, the address of everything (http://localhost:8095, or the port that
# MAXBOT_HTTP_PORT names); WEIR_API_KEY, unless the API runs with `--auth development`; WEBHOOK_SECRET, if it is set there.
# What is made by a check is taken away by it again, where the API can: profiles and messages of the user id
# `weir-try-…` stay.
set -euo pipefail

say() { printf '%s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2 && exit 1; }

command -v curl >/dev/null || fail 'curl is missing: apt-get install curl'

# setting NAME DEFAULT: of the environment, else of .env, whose lines are NAME=value and are not run.
setting() {
    local value=${!1-}
    if [[ -z $value && -f .env ]]; then
        value=$(sed -nE "s/^[[:space:]]*(export )?$1=//p" .env | tail -n 1)
        value=${value%$'\r'}
        case $value in
        \"*\") value=${value#\"} value=${value%\"} ;;
        \'*\') value=${value#\'} value=${value%\'} ;;
        esac
    fi
    printf '%s' "${value:-$2}"
}

url=$(setting WEIR_URL "http://localhost:$(setting MAXBOT_HTTP_PORT 8095)")
key=$(setting WEIR_API_KEY '')
secret=$(setting WEBHOOK_SECRET '')

# Secrets go to curl by file: arguments are seen by everybody on the machine.
headers=$(mktemp)
trap 'rm -f "$headers"' EXIT
api_headers() { [[ -z $key ]] || printf 'Authorization: Bearer %s\n' "$key"; }
hook_headers() { [[ -z $secret ]] || printf 'X-Max-Bot-Api-Secret: %s\n' "$secret"; }

# ask METHOD PATH [BODY]: status and body of the answer in `status` and `body`. `headers_of` names who speaks.
headers_of=api_headers
ask() {
    "$headers_of" >"$headers"
    local arguments=(--silent --show-error --max-time 20 --header "@$headers" --write-out '\n%{http_code}')
    if [[ $1 == HEAD ]]; then arguments+=(--head); else arguments+=(--request "$1"); fi
    [[ $# -lt 3 ]] || arguments+=(--header 'Content-Type: application/json' --data-binary "$3")
    local answer
    answer=$(curl "${arguments[@]}" "$url$2") || fail "$url does not answer; start Weir with \`make up\`, or set WEIR_URL"
    status=${answer##*$'\n'}
    body=${answer%$'\n'*}
}
hook() { headers_of=hook_headers ask POST /webhook/max "$1"; }

# expect STATUS[|STATUS] WHAT [PART OF THE BODY]
expect() {
    [[ $status =~ ^($1)$ ]] || fail "$2: $status instead of $1: $body"
    [[ $# -lt 3 || $body == *"$3"* ]] || fail "$2: no $3 in $body"
    say "ok   $2"
}

# An API asks for a key; the checks say so once, in words.
needs_key() {
    ask GET /monitoring/alerts
    [[ $status != 401 ]] || fail "the API asks for a key: set WEIR_API_KEY; weir key create --role write NAME makes one"
}

# until_found PATH PART OF THE BODY: what was accepted is stored a moment later.
until_found() {
    local by=$((SECONDS + 60))
    while true; do
        ask GET "$1"
        [[ $status != 200 || $body != *"$2"* ]] || break
        ((SECONDS < by)) || fail "$1 has no $2 after a minute: $status $body"
        sleep 0.2
    done
    say "ok   $1 has $2"
}

unique=$(date +%s)-$$
user=weir-try-$unique

health() {
    headers_of=hook_headers ask HEAD /webhook/max
    expect 200 'the gateway accepts'
    ask GET /health
    expect 200 'the API is well'
}

webhook() {
    needs_key
    hook "{\"type\":\"message_new\",\"message\":{\"from\":{\"user_id\":\"$user\",\"first_name\":\"Иван\",\"last_name\":\"Петров\"},\"text\":\"Hello\"}}"
    [[ $body != *'"disabled"'* ]] || fail 'webhooks are switched off: WEBHOOK_ENABLED=true, then weir fleet restart'
    expect 200 'the short format is accepted'
    until_found "/profiles/$user" '"max_first_name":"Иван"'
    local number=${unique%-*}
    hook "{\"message\":{\"recipient\":{\"chat_id\":$number,\"chat_type\":\"dialog\",\"user_id\":1},\"timestamp\":${number}000,\"body\":{\"mid\":\"mid.weir-try-$unique\",\"seq\":116327994376978687,\"text\":\"try\"},\"sender\":{\"user_id\":$number,\"first_name\":\"Try\",\"last_name\":\"Weir\",\"is_bot\":false,\"last_activity_time\":${number}000,\"name\":\"Try Weir\"}},\"timestamp\":${number}000,\"update_type\":\"message_created\"}"
    expect 200 "MAX's own format is accepted"
    until_found "/profiles/$number" '"max_last_name":"Weir"'
    hook 'no json'
    expect 200 'what is no JSON is answered with 200 and counted'
    if [[ -n $secret ]]; then
        secret=wrong-$secret hook '{}'
        expect 401 'a wrong secret is refused'
    fi
    ask GET /monitoring/webhook/stats
    expect '200|404' 'the statistics are there, or switched off'
}

profiles() {
    needs_key
    hook "{\"type\":\"message_new\",\"message\":{\"from\":{\"user_id\":\"$user\",\"first_name\":\"Мария\",\"last_name\":\"Иванова\"}}}"
    expect 200 'an event is accepted'
    until_found "/profiles/$user" '"source":"webhook"'
    ask POST /employees "{\"phone\":\"+1234567890\",\"max_id\":\"$user\",\"university_id\":1}"
    expect 201 'an employee is created from the profile'
    local id
    id=$(grep -oE '"id":[0-9]+' <<<"$body" | head -n 1 | cut -d: -f2)
    case $body in
    *'"profile_source":"webhook"'*) say 'ok   the name is MAX'"'"'s' ;;
    *'"profile_source":"default"'*) say 'ok   the integration is off for this user: the name is the default' ;;
    *) fail "an unexpected profile_source: $body" ;;
    esac
    ask DELETE "/employees/$id"
    expect '200|204' 'and deleted again'
    ask POST "/profiles/$user/name" '{"name":"Маша Иванова"}'
    expect 200 'the user tells a name'
    until_found "/profiles/$user" '"display_name":"Маша Иванова"'
}

# What clients did before there were MAX events and profiles.
compatibility() {
    needs_key
    local id=weirtry$unique message
    message="{\"external_message_id\":\"$id\",\"external_client_id\":\"weir-try\",\"client_phone\":\"+79194961182\",\"message_text\":\"Привет!\",\"send_at\":1640995200}"
    headers_of=true ask POST /api/v1/webhook "$message"
    expect 202 'a message is accepted' '"status":"accepted"'
    headers_of=true ask POST /api/v1/webhook "$message"
    expect 200 'and known when it comes again' '"status":"duplicate"'
    headers_of=true ask POST /api/v1/webhook/batch "[$message]"
    expect '200|207' 'a batch is answered item by item' '"duplicate"'
    ask POST /employees '{"phone":"+1234567890","first_name":"Ivan","last_name":"Petrov","university_id":1}'
    expect 201 'an employee without a max_id is created' '"first_name":"Ivan"'
    [[ $body == *'"profile_source":"manual"'* ]] || fail "a name of the request is not manual: $body"
    ask DELETE "/employees/$(grep -oE '"id":[0-9]+' <<<"$body" | head -n 1 | cut -d: -f2)"
    expect '200|204' 'and deleted again'
}

# quantile_ms PATH: the 99th of a hundred requests.
quantile_ms() {
    api_headers >"$headers"
    local times=()
    for _ in $(seq 100); do times+=("$(curl --silent --output /dev/null --max-time 20 --header "@$headers" --write-out '%{time_total}' "$url$1")"); done
    printf '%s\n' "${times[@]}" | sort -n | sed -n 99p | awk '{printf "%.1f", $1 * 1000}'
}

performance() {
    needs_key
    local path
    for path in /monitoring/profiles/coverage /monitoring/profiles/quality /monitoring/webhook/stats /monitoring/cache-health; do
        ask GET "$path"
        expect 200 "$path answers"
        say "     p99 of 100 requests: $(quantile_ms "$path") ms"
    done
}

case ${1-} in
health | webhook | profiles | compatibility | performance) "$1" ;;
*) printf 'usage: %s health | webhook | profiles | compatibility | performance\n' "$0" >&2 && exit 2 ;;
esac
