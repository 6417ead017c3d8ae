"""What other people do with a repository that was run, one trial each, on the tiny model.

    python -m tests.trials.people [NAME ...]

Everything is real: a bare Git repository, DVC remotes in a folder, on an S3 server and over SSH on
loopback (packages dvc-s3, moto[server] and dvc-ssh; skipped without them).
"""

import argparse
import asyncio
import json
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from tests.conftest import write_tiny_weights
from tests.repository import Repository, make_repository, wait_for
from tests.stage_server import serve
from tests.trials.common import Skipped, read_outs, run_trials

VARIANTS = (2, 3, 4, 5, 6, 7, 9, 10)  # of lora.r, for the queue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.trials.people")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder, "server")) as programs:
        write_tiny_weights(Path(folder, "weights"))
        made = make_repository(Path(folder, "repository"), Path(folder, "weights"), programs)
        run_trials(make_trials(made), arguments.names)


def make_trials(made: Repository) -> dict[str, Callable[[Path], str]]:
    """Name -> trial, which gets an empty folder."""
    trials = (local, s3, ssh, autocrlf, worktree, shallow, experiments, queue, without_data)
    return {each.__name__: partial(each, made) for each in trials}


def copied(made: Repository, folder: Path) -> Repository:
    """Somebody's own copy, with DVC's cache."""
    shutil.copytree(made.folder, folder, symlinks=True)
    return Repository(folder, made.programs)


def pulled(made: Repository, folder: Path, url: str, *options: str, **environment: str) -> str:
    """Push to a remote, clone, pull, run nothing; `options` are of `dvc remote modify`."""
    owner = copied(made, folder / "owner")
    owner.run("dvc", "remote", "add", "--default", "store", url)
    for key, value in (each.split("=", 1) for each in options):
        owner.run("dvc", "remote", "modify", "store", key, value)
    owner.run("dvc", "push", **environment)
    owner.commit("remote")
    return fresh(owner, folder / "clone", **environment)


def fresh(owner: Repository, folder: Path, *options: str, **environment: str) -> str:
    """Clone, pull, and run nothing."""
    owner.run("git", "clone", "-q", *options, owner.folder.as_uri(), str(folder))
    clone = Repository(folder, owner.programs)
    clone.run("dvc", "pull", **environment)
    return nothing_to_do(clone, read_outs(owner))


def nothing_to_do(clone: Repository, expected: dict[str, str]) -> str:
    said = clone.run("dvc", "repro")
    if "up to date" not in said:
        return f"it ran: {said[-300:]}"
    return "" if read_outs(clone) == expected else "other bytes"


def local(made: Repository, folder: Path) -> str:
    """A remote in a folder."""
    return pulled(made, folder, str(folder / "store"))


def s3(made: Repository, folder: Path) -> str:
    """A remote on an S3 server."""
    if not (find_spec("dvc_s3") and find_spec("moto")):
        raise Skipped("pip install dvc-s3 'moto[server]'")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "x"}
        from botocore.session import get_session

        address = f"http://{host}:{port}"
        client = get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=address,
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        client.create_bucket(Bucket="store")
        return pulled(made, folder, "s3://store/path", f"endpointurl={address}", **keys)
    finally:
        server.stop()


def ssh(made: Repository, folder: Path) -> str:
    """A remote over SSH."""
    if not find_spec("dvc_ssh"):
        raise Skipped("pip install dvc-ssh")
    store = folder / "store"
    store.mkdir()
    with sftp_server(folder) as port:
        url = f"ssh://somebody@127.0.0.1:{port}{store}"
        return pulled(made, folder, url, "password=right", "allow_agent=false")


@contextmanager
def sftp_server(folder: Path) -> Iterator[int]:
    """An SSH server on loopback that gives files to one user; its port."""
    import asyncssh

    class OneUser(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == ("somebody", "right")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    loop = asyncio.new_event_loop()
    key = asyncssh.generate_private_key("ssh-ed25519")
    loop.run_until_complete(
        asyncssh.create_server(
            OneUser, "127.0.0.1", port, server_host_keys=[key], sftp_factory=True, allow_scp=True
        )
    )
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield port
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def autocrlf(made: Repository, folder: Path) -> str:
    """A clone whose Git would write other line ends."""
    owner = shared(made, folder)
    return fresh(owner, folder / "clone", "-c", "core.autocrlf=true")


def shallow(made: Repository, folder: Path) -> str:
    """A clone of the last commit only."""
    return fresh(shared(made, folder), folder / "clone", "--depth", "1")


def worktree(made: Repository, folder: Path) -> str:
    """A second working tree of the same clone."""
    owner = shared(made, folder)
    owner.run("git", "worktree", "add", "-q", str(folder / "tree"))
    tree = Repository(folder / "tree", owner.programs)
    tree.run("dvc", "pull")
    return nothing_to_do(tree, read_outs(owner))


def shared(made: Repository, folder: Path) -> Repository:
    """A copy whose data is pushed to a remote in a folder."""
    owner = copied(made, folder / "owner")
    owner.run("dvc", "remote", "add", "--default", "store", str(folder / "store"))
    owner.run("dvc", "push")
    owner.commit("remote")
    return owner


def experiments(made: Repository, folder: Path) -> str:
    """An experiment is pushed, pulled by a colleague, applied and made a branch."""
    owner = shared(made, folder)
    bare = folder / "bare.git"
    owner.run("git", "clone", "-q", "--bare", str(owner.folder), str(bare))
    owner.run("git", "remote", "add", "origin", str(bare))
    owner.run("dvc", "exp", "run", "-n", "other", "-S", "lora.r=4")
    expected = read_outs(owner)
    owner.run("dvc", "exp", "push", "origin", "other")
    owner.run("git", "clone", "-q", str(bare), str(folder / "clone"))
    clone = Repository(folder / "clone", owner.programs)
    clone.run("dvc", "exp", "pull", "origin", "other")
    clone.run("dvc", "pull", "-q")
    clone.run("dvc", "exp", "apply", "other")
    if wrong := nothing_to_do(clone, expected):
        return wrong
    clone.run("git", "checkout", "-q", "-f", ".")
    clone.run("dvc", "exp", "branch", "other", "of-other")
    clone.run("git", "checkout", "-q", "of-other")
    clone.run("dvc", "checkout", "-q", "--force")
    return nothing_to_do(clone, expected)


def queue(made: Repository, folder: Path) -> str:
    """Eight experiments in the queue with two workers equal the same ones alone."""
    owner = copied(made, folder / "owner")
    ranks = ",".join(map(str, VARIANTS))
    owner.run("dvc", "exp", "run", "--queue", "-S", f"lora.r={ranks}")
    owner.run("dvc", "queue", "start", "--jobs", "2")

    def ended() -> bool:
        said = owner.run("dvc", "queue", "status")
        return not any(word in said for word in ("Queued", "Running"))

    wait_for(ended, seconds=1800)
    queued = losses(owner)
    alone = copied(made, folder / "alone")
    for rank in VARIANTS:
        alone.run("dvc", "exp", "run", "-S", f"lora.r={rank}")
        alone.run("git", "checkout", "-q", "-f", ".")
    expected = losses(alone)
    if set(queued) != {*VARIANTS, 8}:
        return f"of {len(VARIANTS)} there are {sorted(queued)}"
    return "" if queued == expected else f"{queued} instead of {expected}"


def losses(repository: Repository) -> dict[int, float]:
    """lora.r -> loss of every experiment."""
    shown = json.loads(repository.run("dvc", "exp", "show", "--json").splitlines()[-1])
    found = {}
    for commit in shown:
        for each in [commit, *(e for x in commit["experiments"] or [] for e in x["revs"])]:
            if data := each.get("data"):
                rank = data["params"]["params.yaml"]["data"]["lora"]["r"]
                found[rank] = data["metrics"]["metrics/tuned.json"]["data"]["loss"]
    return found


def without_data(made: Repository, folder: Path) -> str:
    """A clone without data asks for it, in one line, and its metrics can be had back."""
    owner = shared(made, folder)
    owner.run("git", "clone", "-q", str(owner.folder), str(folder / "clone"))
    clone = Repository(folder / "clone", owner.programs)
    command = ["dvc", "repro", "--single-item", "train"]
    done = subprocess.run(
        command, cwd=clone.folder, env=clone.environment, capture_output=True, encoding="utf-8"
    )
    if not done.returncode or "Traceback" in done.stderr:
        return f"ended with {done.returncode}: {done.stderr[-300:]}"
    clone.run("git", "checkout", "-q", "metrics")
    clone.run("dvc", "pull", "-q")
    return nothing_to_do(clone, read_outs(owner))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
