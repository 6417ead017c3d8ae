"""Slurm: two nodes train together, are cancelled and go on; preprocess is spread over both.

    apt-get install slurm-wlm munge
    python -m tests.engines.slurm

Needs root: slurmctld and two slurmd, with an address each, run on this machine in namespaces of
their own (network, processes, mounts), so that nothing is left of them when this ends, and nothing
of the machine is changed. A node's GPU is /dev/null, so that the preset counts it; training runs on
the CPU, by gloo. Each trial is what docs/scale.md says to type.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.engines.common import (
    PREPARED,
    TRAINED,
    compare,
    digests,
    distance,
    forget,
    launch_by,
    prepare,
    read_adapter,
    run_trials,
    steps_saved,
)
from tests.repository import Repository, wait_for
from tests.trials.common import remove

INSIDE = "TESTS_ENGINES_SLURM"
NAMESPACES = ("--mount", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
NODES = {"node1": "10.0.0.1", "node2": "10.0.0.2"}
SUBMIT = ("sbatch", "--nodes=2", "--gpus-per-node=1", "--output=../job-%j.log", "--wait")
CONFIGURATION = """
ClusterName=trial
SlurmctldHost=node1
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
GresTypes=gpu
PartitionName=cpu Nodes=ALL Default=YES State=UP MaxTime=INFINITE
"""


def main() -> None:
    if INSIDE not in os.environ:
        _enter()
    with tempfile.TemporaryDirectory() as folder, _cluster(Path(folder)):
        repository = prepare(Path(folder))
        alone = read_adapter(repository)
        expected: dict[str, str] = {}
        run_trials(
            [
                ("preprocess spread over two nodes", partial(spread, repository)),
                ("jobs of preprocess that fail", partial(fail, repository)),
                ("train on two nodes", partial(train, repository, alone, expected)),
                ("train cancelled and submitted again", partial(cancel, repository, expected)),
            ]
        )


def _enter() -> None:
    """Begin anew in namespaces of our own."""
    for program in ("unshare", "ip", "munged", "slurmctld", "slurmd"):
        if not shutil.which(program):
            sys.exit(f"there is no {program}: apt-get install slurm-wlm munge util-linux iproute2")
    # A shell as the first process, since Python would leave the jobs that it inherits unreaped.
    words = ["unshare", *NAMESPACES, "sh", "-c", '"$@"; exit $?', "sh"]
    words += [sys.executable, "-m", "tests.engines.slurm"]
    os.execvpe("unshare", words, os.environ | {INSIDE: "1"})


@contextmanager
def _cluster(folder: Path):
    """Two nodes that answer. They end with the namespace of processes."""
    _name_nodes(folder)
    _configure(folder)
    _authenticate(folder)
    os.environ |= {"SLURM_CONF": str(folder / "slurm.conf")}
    daemons = [_start(folder, "slurmctld", "-D")]
    daemons += [_start(folder, "slurmd", "-D", "-N", node) for node in NODES]
    wait_for(lambda: _ask("sinfo", "-h", "-t", "idle", "-o", "%D") == "2")
    yield
    for each in daemons:
        each.terminate()


def _name_nodes(folder: Path) -> None:
    """Each node has an address and a name, in this namespace only."""
    subprocess.run(["hostname", "node1"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in NODES.values():
        subprocess.run(["ip", "address", "add", f"{address}/24", "dev", "lo"], check=True)
    lines = ["127.0.0.1 localhost", *(f"{address} {node}" for node, address in NODES.items())]
    (folder / "hosts").write_text("\n".join(lines) + "\n", encoding="utf-8")
    subprocess.run(["mount", "--bind", folder / "hosts", "/etc/hosts"], check=True)


def _configure(folder: Path) -> None:
    """slurm.conf and what belongs to it."""
    lines = [
        f"NodeName={node} NodeHostname=node1 NodeAddr={address} Port={17001 + number} "
        f"CPUs={os.cpu_count()} RealMemory=8000 Gres=gpu:1"
        for number, (node, address) in enumerate(NODES.items())
    ]
    head, _, partition = CONFIGURATION.format(folder=folder).strip().rpartition("\n")
    texts = {
        "slurm.conf": "\n".join([head, *lines, partition]),
        "gres.conf": f"NodeName={','.join(NODES)} Name=gpu File=/dev/null",
        "cgroup.conf": f"CgroupPlugin={_cgroups()}",
    }
    for name, text in texts.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")
    for name in ("state", *NODES):
        (folder / name).mkdir()


def _cgroups() -> str:
    """Slurm can do without only from 23.02 on; before, version 1 is looked for and not used."""
    version = _ask("slurmd", "-V").split()[-1].split(".")
    return "disabled" if int(version[0]) >= 23 else "cgroup/v1"


def _authenticate(folder: Path) -> None:
    """munge with a key of its own."""
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    folder.chmod(0o755)
    names = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{name}={folder}/munge.{end}" for name, end in names.items()]
    subprocess.run(["munged", "--force", f"--key-file={key}", *options], check=True)


def _start(folder: Path, *command: str) -> subprocess.Popen:
    with (folder / f"{command[0]}-{command[-1]}.out").open("w", encoding="utf-8") as out:
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)


def _ask(*command: str) -> str:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    )
    return done.stdout.strip()


def submit(repository: Repository) -> subprocess.Popen:
    """`dvc repro train` as a job of two nodes; ends when the job does."""
    return subprocess.Popen(
        [*SUBMIT, "--parsable", "--wrap", "dvc repro train"],
        cwd=repository.folder,
        env=repository.plain,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )


def said(repository: Repository, job: str) -> str:
    """What a job has said."""
    log = repository.folder.parent / f"job-{job}.log"
    return log.read_text("utf-8", "replace") if log.exists() else ""


def spread(repository: Repository) -> tuple[str, str]:
    """The tasks of preprocess as jobs of datatrove; the stage puts them together."""
    expected = digests(repository.folder, PREPARED)
    for name in (*PREPARED, "data/work", ".dvc/cache/runs"):
        remove(repository.folder / name)
    begun = time.monotonic()
    words = "models/base data/raw --executor slurm --tasks 4 --option time=00:10:00"
    repository.run(
        *("timeout", "600", sys.executable, "-m", "tools.spread", *words.split()),
        *("--option", "partition=cpu"),
    )
    seconds = time.monotonic() - begun
    jobs = len(list((repository.folder / "data/work").glob("*/logs/*/slurm_logs/*.out")))
    repository.run("dvc", "repro", "--force", "--single-item", "preprocess")
    left = list((repository.folder / "data/work").glob("preprocess-*"))
    wrong = f"{left[0]} was not used" if left else ""
    told = f"{jobs} jobs in {seconds:.0f} s"
    return told, wrong or compare(repository.folder, PREPARED, expected)


def fail(repository: Repository) -> tuple[str, str]:
    """Jobs that end before they work, as where a node lacks the environment: one line says so."""
    words = "models/base data/raw --executor slurm --tasks 4 --option time=00:10:00"
    begun = time.monotonic()
    done = subprocess.run(
        [
            *("timeout", "600", sys.executable, "-m", "tools.spread", *words.split()),
            *("--option", "partition=cpu", "--option", "env_command=exit 3"),
        ],
        cwd=repository.folder,
        env=repository.plain,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    seconds = time.monotonic() - begun
    remove(repository.folder / "data/work")
    last = done.stderr.strip().splitlines()[-1]
    right = done.returncode == 1 and last.startswith("error:") and "Traceback" not in done.stderr
    return f"{seconds:.0f} s", "" if right else f"ended with {done.returncode}: {last}"


def train(repository: Repository, alone, expected: dict[str, str]) -> tuple[str, str]:
    """Both nodes train, as docs/scale.md says."""
    command = "srun --ntasks-per-node=1 bash presets/launch/slurm.sh"
    launch_by(repository, command)
    forget(repository)
    begun = time.monotonic()
    job = submit(repository)
    number = job.communicate()[0].strip()
    seconds = time.monotonic() - begun
    if job.returncode:
        return "", f"ended with {job.returncode}: {said(repository, number)[-3000:]}"
    expected.update(digests(repository.folder, TRAINED))
    apart = distance(read_adapter(repository), alone)
    told = f"{seconds:.0f} s; {apart:.1e} from one process"
    return told, "" if apart < 1e-3 else "not the same"


def cancel(repository: Repository, expected: dict[str, str]) -> tuple[str, str]:
    """scancel in the middle, then the same job again."""
    forget(repository)
    first = submit(repository)
    wait_for(lambda: steps_saved(repository) >= 20 or first.poll() is not None, 300)
    reached = steps_saved(repository)
    begun = time.monotonic()
    subprocess.run(["scancel", "--me"], check=True)
    number = first.communicate()[0].strip()
    seconds = time.monotonic() - begun
    story = said(repository, number)
    if not first.returncode or "interrupted at step" not in story:
        return "", f"the cancelled job ended with {first.returncode}: {story[-9000:]}"
    kept = steps_saved(repository)
    second = submit(repository)
    number = second.communicate()[0].strip()
    told = f"after step {reached}, ended {seconds:.0f} s later with step {kept} saved"
    if second.returncode or "continuing from" not in said(repository, number):
        return told, f"ended with {second.returncode}: {said(repository, number)[-3000:]}"
    return told, compare(repository.folder, TRAINED, expected)


if __name__ == "__main__":
    sys.exit(main())
