"""Try the newest releases of the libraries in a fresh environment, and say what would break.

    python -m tools.versions                      # all of them at once, and the whole test command
    python -m tools.versions peft dvc --tests tests/test_trainer.py tests/test_pipeline.py

Nothing of the environment that runs this is changed. Ends with 1 where a test fails or pip cannot
put the releases together; what passes is printed as the lines to write into requirements.in.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("transformers", "peft", "bitsandbytes", "accelerate", "torch", "dvc")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m tools.versions",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("packages", nargs="*", default=PACKAGES, help="default: %(default)s")
    parser.add_argument("--tests", nargs="*", default=[], help="files; default: all")
    arguments = parser.parse_args()
    pinned = read_pins((ROOT / "requirements.in").read_text(encoding="utf-8"))
    if unknown := [name for name in arguments.packages if name not in pinned]:
        sys.exit(f"error: {', '.join(unknown)} is not in requirements.in")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder, "bin/python"))
        install(python, "-r", str(ROOT / "requirements.txt"))
        install(python, "--upgrade", *arguments.packages)
        found = installed(python)
        newer = {n: found[n] for n in arguments.packages if found[n] != pinned[n]}
        for name, version in newer.items():
            print(f"{name}: {pinned[name]} -> {version}", flush=True)
        if not newer:
            print("the pinned releases are the newest ones")
            return
        command = [python, "-m", "pytest", "-q", "--no-header", "-rf", *arguments.tests]
        if subprocess.run(command, cwd=ROOT).returncode:
            sys.exit("error: the tests above fail with these releases; requirements.in stays")
        print("all pass; in requirements.in, then compile it as CONTRIBUTING.md says:")
        for name, version in newer.items():
            print(f"{name}=={version}")


def read_pins(text: str) -> dict[str, str]:
    """Package -> version, of the lines `name==version`; extras are left out of the name."""
    return dict(re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)", text, re.M))


def install(python: str, *words: str) -> None:
    """pip install; ends in one line where the releases do not go together."""
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8")
    conflicts = [line for line in done.stderr.splitlines() if "requires" in line and "but" in line]
    if done.returncode or conflicts:
        last = [line for line in done.stderr.splitlines() if "ERROR" in line][-3:]
        sys.exit(f"error: pip install {' '.join(words)}: {'; '.join(conflicts or last)}")


def installed(python: str) -> dict[str, str]:
    """Package -> version of an environment, without local suffixes such as +cpu."""
    command = [python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.check_output(command, encoding="utf-8"))
    return {each["name"].lower(): each["version"].partition("+")[0] for each in listed}


if __name__ == "__main__":
    main()
