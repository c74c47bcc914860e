#!/usr/bin/env bash
# Train on a Google machine with a GPU, push the results, stop the machine: docs/how-to/google-cloud.md
#
#   batch/google.sh [--dry-run] [--delete] [COMMAND...]
#
# COMMAND runs on the machine (default: `make repro`), such as `hydra -m model=cnn,dcnn seed=0,1`.
#   --dry-run  print what would be done; Google is only asked whether the machine is there
#   --delete   delete the machine after success; it is only stopped otherwise
#
# Settings are environment variables:
#   GOOGLE_PROJECT, GOOGLE_ZONE  where the machine is
#   MLFLOW_TRACKING_URI          a server that it reaches; also MLFLOW_TRACKING_USERNAME and _PASSWORD
#   GOOGLE_MACHINE               its name (default: image-classification)
#   GOOGLE_MACHINE_TYPE          one that includes a GPU (default: g2-standard-8, with an L4)
#   GOOGLE_IMAGE_FAMILY          of the Deep Learning images, one with NVIDIA's driver
#   GOOGLE_MAX_RUN_DURATION      after which Google stops it in any case (default: 12h)
set -euo pipefail

error() {
    echo "error: $*" >&2
    exit 1
}

# The part that runs on the machine, in the commit's folder.
train() {
    sudo shutdown -c 2>/dev/null || true # the end of an earlier training
    # The caller may be gone, and can't stop the machine. Ten minutes are for fetching the results.
    trap 'sudo shutdown --poweroff +10' EXIT
    sudo apt-get --quiet update
    sudo apt-get --quiet -o DPkg::Lock::Timeout=300 install --yes make python3-venv
    make setup
    export PATH="$PWD/.venv/bin:$PATH"
    uv pip install --quiet --constraint requirements.lock 'tensorflow[and-cuda]' dvc-gs
    dvc pull --allow-missing
    dvc repro split # what a sweep trains on
    local status=0
    "$@" || status=$?
    # What is done is kept, whatever failed.
    dvc push || status=$?
    image-classification sync || status=$?
    git add --all
    git -c user.name=batch/google.sh -c user.email=google@localhost \
        commit --quiet --allow-empty --message "Results of $*"
    git bundle create --quiet ../results.bundle HEAD^..HEAD
    exit "$status"
}

if [ "${1-}" = --on-machine ]; then
    train "${@:2}"
fi

dry_run='' delete=''
while [[ ${1-} == -* ]]; do
    case $1 in
        --dry-run) dry_run=yes ;;
        --delete) delete=yes ;;
        -h | --help) sed -n '2,/^set /s/^# \?//p' "$0" && exit ;;
        *) error "batch/google.sh has no option $1; see --help" ;;
    esac
    shift
done
[ $# -gt 0 ] || set -- make repro

cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
for setting in GOOGLE_PROJECT GOOGLE_ZONE MLFLOW_TRACKING_URI; do
    [ -n "${!setting-}" ] || error "$setting is not set; see batch/google.sh --help"
done
[[ $MLFLOW_TRACKING_URI =~ ^https?:// && ! $MLFLOW_TRACKING_URI =~ ://(127\.|localhost) ]] \
    || error "MLFLOW_TRACKING_URI is not a server that a Google machine can reach: $MLFLOW_TRACKING_URI"
command -v gcloud >/dev/null || error "gcloud is missing: https://cloud.google.com/sdk/docs/install"
[ -z "$(git status --porcelain)" ] || error "git status is not clean: the machine gets a commit"
configuration=$(dvc config --project --list)
remote=$(sed -n 's/^core.remote=//p' <<<"$configuration")
grep -q "^remote.$remote.url=gs://" <<<"$configuration" \
    || error "no remote to push to: dvc remote add --default shared gs://BUCKET/PATH, then commit .dvc/config"

name=${GOOGLE_MACHINE:-image-classification}
limit=${GOOGLE_MAX_RUN_DURATION:-12h}
place=(--project "$GOOGLE_PROJECT" --zone "$GOOGLE_ZONE")

run() {
    if [ -z "$dry_run" ]; then
        "$@"
    else
        local word
        for word; do
            [[ $word =~ ^[[:alnum:]/.:=,@_+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
            printf '%s ' "$word"
        done
        echo
    fi
}

state() {
    gcloud compute instances list --project "$GOOGLE_PROJECT" --zones "$GOOGLE_ZONE" \
        --filter "name=$name" --format 'value(status)'
}

finish() {
    local status=$?
    rm -rf "$folder"
    if [ "$status" = 255 ]; then # of ssh
        echo "The connection is lost. The training continues, pushes, and stops the machine, after $limit" \
            "at the latest. The same command waits for it and fetches the results." >&2
    elif [ -n "$dry_run" ] || [ -n "$(state)" ]; then # it may never have been created
        if [ -n "$delete" ] && [ "$status" = 0 ]; then
            run gcloud compute instances delete "$name" "${place[@]}" --quiet
        else
            run gcloud compute instances stop "$name" "${place[@]}"
        fi || echo "error: $name is still running; Google stops it after $limit" >&2
    fi
}
found=$(state)
[[ ,,PROVISIONING,STAGING,RUNNING,TERMINATED, == *",$found,"* ]] \
    || error "$name is $found: try again when it has stopped"
folder=$(mktemp -d)
trap finish EXIT
trap 'exit 130' INT TERM
trap 'exit 255' HUP # the terminal is gone

case $found in
    '')
        run gcloud compute instances create "$name" "${place[@]}" \
            --machine-type "${GOOGLE_MACHINE_TYPE:-g2-standard-8}" \
            --image-project deeplearning-platform-release \
            --image-family "${GOOGLE_IMAGE_FAMILY:-common-cu129-ubuntu-2404-nvidia-580}" \
            --metadata install-nvidia-driver=True --boot-disk-size 100GB \
            --maintenance-policy TERMINATE --no-restart-on-failure \
            --max-run-duration "$limit" --instance-termination-action STOP \
            --scopes cloud-platform
        ;;
    TERMINATED) run gcloud compute instances start "$name" "${place[@]}" ;;
esac

ssh=(gcloud compute ssh "$name" "${place[@]}" --quiet)
tries=60
until run "${ssh[@]}" --command nvidia-smi 2>/dev/null; do
    ((--tries)) || error "$name does not respond, or has no GPU: ${ssh[*]} --command nvidia-smi"
    sleep 10
done

run git bundle create --quiet "$folder/commit.bundle" HEAD
run gcloud compute scp "$folder/commit.bundle" "$name:" "${place[@]}" --quiet
# A session of its own and a log in a file: the training outlives the connection, and holds the lock.
command="set -e
exec 9>training.lock
flock --nonblock 9 || { echo 'waiting for the training that is running there'; flock 9; }
git init --quiet project
git -C project fetch --quiet --force ../commit.bundle HEAD
git -C project checkout --quiet --force --detach FETCH_HEAD
cd project
source <(cat)
: >../training.log
setsid nohup bash batch/google.sh --on-machine ${*@Q} >>../training.log 2>&1 </dev/null &
tail --pid=\$! --lines=+1 --follow ../training.log
wait \$! || exit \$((\$? == 255 ? 1 : \$?)) # 255 is ssh's own, for a lost connection"
settings() { # for standard input: keeps passwords out of process lists and off the disk
    for setting in MLFLOW_TRACKING_{URI,USERNAME,PASSWORD}; do
        [ -z "${!setting-}" ] || printf 'export %s=%q\n' "$setting" "${!setting}"
    done
}
run "${ssh[@]}" --ssh-flag=-oServerAliveInterval=60 --command "$command" < <(settings)

run gcloud compute scp "$name:results.bundle" "$folder" "${place[@]}" --quiet
run git fetch --quiet --force "$folder/results.bundle" "HEAD:results/$name"
[ -n "$dry_run" ] || echo "The results are in the branch results/$name: git merge results/$name && dvc pull"
