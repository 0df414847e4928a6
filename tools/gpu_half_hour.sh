#!/usr/bin/env bash
# The published tables on one GPU, as far as half an hour goes:
#
#     bash tools/gpu_half_hour.sh [MINUTES [OPTION …]]
#
# What counts most comes first. When the minutes (default: 30) are over, the step under way is
# interrupted as by Ctrl-C; everything finished is kept under $MODECONN_DATA, so that the same line
# goes on there, on this machine or on another one with a copy of that folder. OPTIONs go to every
# run. A rehearsal on any CPU, in minutes:
#
#     bash tools/gpu_half_hour.sh 30 --quick --epochs 2 --pairs 1 --device cpu --workers 1 --methods linear arc
set -uo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-30}
shift || true
end=$((SECONDS + minutes * 60))

# Networks are small for a GPU: several processes share it, and none waits for another's loop.
small=(--device cuda --workers 8)
large=(--device cuda --workers 2)
# Flows learn from sixteen more networks: on CIFAR-10, with 400 epochs each, they come last.
plain=(linear arc transport-copy transport linear-wa arc-wa transport-wa-copy transport-wa)

run() {
    local left=$((end - SECONDS)) start=$SECONDS code=0
    if ((left < 30)); then
        echo "== no time left for: $*"
        return 1
    fi
    echo "== $* ($((left / 60)) minutes left)"
    # `${@}` below: what is given on the command line comes last, and so it counts.
    timeout --foreground --signal=INT --kill-after=60 "$left" \
        "${PYTHON:-python}" -m modeconn_lite run "$@" "${extra[@]}" || code=$?
    echo "== $1: code $code after $((SECONDS - start)) seconds"
    return "$code"
}

extra=("$@")
failed=()
for step in \
    "mnist-1hl --pairs 5 ${small[*]}" \
    "cifar10-1hl --pairs 3 --methods ${plain[*]} ${small[*]}" \
    "cifar10-vgg16 --pairs 1 --epochs 60 ${large[*]}" \
    "cifar10-conv2fc1 --pairs 1 ${large[*]}" \
    "cifar10-fc3 --pairs 1 --epochs 100 ${large[*]}" \
    "cifar10-1hl --pairs 3 ${small[*]}"; do
    # shellcheck disable=SC2086 # words are meant
    run $step || failed+=("${step%% *}")
done
if ((${#failed[@]})); then
    echo "== to be gone on with: ${failed[*]}"
    exit 1
fi
