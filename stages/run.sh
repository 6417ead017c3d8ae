#!/bin/sh
# Runs a stage's command with the programs of the environment that DVC itself is of. Started by its
# path (`.venv/bin/dvc repro` in cron, Slurm, an editor), DVC does not put them on the PATH.
program_of() {
    if [ -r "/proc/$1/cmdline" ]; then tr '\0' '\n' <"/proc/$1/cmdline" | head -n 1
    else ps -o comm= -p "$1"; fi
}
parent_of() {
    if [ -r "/proc/$1/status" ]; then sed -n 's/^PPid:[[:space:]]*//p' "/proc/$1/status"
    else ps -o ppid= -p "$1" | tr -d ' '; fi
}
process=$PPID
while [ -z "$VIRTUAL_ENV$CONDA_PREFIX" ] && [ "${process:-1}" -gt 1 ]; do
    programs=$(dirname -- "$(program_of "$process")")
    if [ -x "$programs/dvc" ] && ls -d "$programs"/../lib/python3*/site-packages/peft >/dev/null 2>&1
    then
        PATH="$programs:$PATH"
        export PATH
        break
    fi
    process=$(parent_of "$process")
done
if ! command -v "$1" >/dev/null 2>&1; then
    echo "error: there is no $1 on the PATH: activate the environment that requirements.txt was" \
        "installed in (. .venv/bin/activate), then run dvc again" >&2
    exit 127
fi
exec "$@"
