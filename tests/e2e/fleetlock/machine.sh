#!/bin/sh
# One simulated machine that speaks FleetLock, written from the protocol's text alone:
# https://coreos.github.io/zincati/development/fleetlock/protocol/
#
#   machine.sh ID GROUP BASE_URL FOLDER [NAME:TOKEN]
#
# FOLDER is what the fleet shares for the test: `journal` gets a line when a machine goes down and one when it is up
# again; a file `ID.updated` is the machine's own disk, which a reboot leaves alone. Needs sh and curl.
set -eu

id=$1 group=$2 base=${3%/} folder=$4 login=${5-}
# It gives up after so many answers other than 200: two minutes.
tries=600

# post PATH: 0 where the answer is 200, every other code being a failed operation. $answer is the body.
post() {
    code=$(
        printf '{"client_params": {"id": "%s", "group": "%s"}}' "$id" "$group" |
            curl --silent --show-error --max-time 20 ${login:+--user "$login"} \
                --header 'fleet-lock-protocol: true' --data @- \
                --output "$folder/$id.answer" --write-out '%{http_code}' "$base/v1/$1"
    ) || code=000
    answer=$(cat "$folder/$id.answer" 2>/dev/null || :)
    [ "$code" = 200 ]
}

# until_ok PATH: ask again until the answer is 200.
until_ok() {
    left=$tries
    until post "$1"; do
        left=$((left - 1))
        case $answer in
        *'"kind"'*'"value"'*) ;;
        *) echo "$id: $1: $code without kind and value: $answer" >&2; exit 1 ;;
        esac
        if [ "$left" -le 0 ]; then
            echo "$id: $1: $code $answer" >&2
            exit 1
        fi
        sleep 0.2
    done
}

# Initialization: release whatever slot may have been held before.
if [ -e "$folder/$id.updated" ]; then
    echo "up $id" >>"$folder/journal"
fi
until_ok steady-state

# Steady: look for an update. There is one, until it has been made.
if [ -e "$folder/$id.updated" ]; then
    exit 0
fi

# Pre-reboot: reserve a slot, and once more, as a client may.
until_ok pre-reboot
until_ok pre-reboot

# Finalization: reboot. Nothing is remembered but what is on the disk.
echo "down $id" >>"$folder/journal"
: >"$folder/$id.updated"
sleep 0.1
exec sh "$0" "$@"
