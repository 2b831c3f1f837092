"""Install the locked requirements into .venv. Do nothing if they are installed already.

    python3 scripts/install.py          the runtime: requirements.txt
    python3 scripts/install.py --dev    also tests and linters: requirements-dev.txt

A stamp file in .venv has the version of Python and the SHA-256 of the installed requirements, so a second call only
reads files. The script uses the standard library only. An old Python must be able to parse it, so that it prints an
error message instead of a SyntaxError.
"""

import hashlib
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
OLDEST = (3, 11)


def main(arguments):
    if sys.version_info < OLDEST:
        fail(
            "Python %d.%d or newer is needed, but this is %s (%s).\nChoose another one: make run PYTHON=python3.13"
            % (OLDEST + (sys.version.split()[0], sys.executable))
        )
    dev = "--dev" in arguments
    if is_installed(dev):
        return
    if not has_this_python():
        create()
    name = requirements(dev)
    say("Installing %s into .venv. This takes about a minute and happens once ..." % name)
    run(
        [VENV_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        + ["--require-hashes", "-r", os.path.join(ROOT, name)],
        "The requirements could not be installed. See the output of pip above.",
    )
    for stale in (True, False):
        if os.path.exists(stamp(stale)):
            os.remove(stamp(stale))
    with open(stamp(dev), "w") as file:
        file.write(fingerprint(dev))


def is_installed(dev):
    """Whether a valid stamp exists. The development requirements include the runtime's, so for the runtime both do."""
    if not has_this_python():
        return False
    return any(read(stamp(kind)) == fingerprint(kind) for kind in ({dev, True}))


def requirements(dev):
    return "requirements-dev.txt" if dev else "requirements.txt"


def stamp(dev):
    return os.path.join(VENV, ".installed-" + requirements(dev))


def fingerprint(dev):
    """The content of a stamp.

    It covers both files, because an old development lock must not count as a newer runtime lock.
    """
    digest = hashlib.sha256()
    for name in sorted({requirements(dev), requirements(False)}):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return "%s %s\n" % (python_name(), digest.hexdigest())


def python_name():
    return "%d.%d" % sys.version_info[:2]


def has_this_python():
    """Whether .venv exists, was made for this folder, and has the version of the Python that runs this script.

    The commands in .venv/bin contain its absolute path, so a project that was moved needs a new .venv.
    """
    if VENV not in (read(os.path.join(VENV, "pyvenv.cfg")) or ""):
        return False
    packages = os.path.join(VENV, "lib", "python" + python_name(), "site-packages")
    return os.path.isdir(os.path.join(packages, "pip")) and os.path.exists(VENV_PYTHON)


def create():
    say("Creating .venv with Python %s ..." % sys.version.split()[0])
    # If this Python is the one in .venv, sys.executable is about to be removed.
    python = getattr(sys, "_base_executable", sys.executable)
    shutil.rmtree(VENV, ignore_errors=True)
    run(
        [python, "-m", "venv", VENV],
        "The virtual environment could not be created. On Debian and Ubuntu: apt install python3-venv",
    )


def run(command, advice):
    if subprocess.call(command) != 0:
        fail(advice)


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def say(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def fail(text):
    say(text)
    sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
