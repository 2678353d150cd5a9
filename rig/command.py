# SPDX-License-Identifier: GPL-2.0-only
"""Runs programs, git's above all, and says what they say."""
import os
import subprocess
import sys

from where import LINUX

# Nothing of how a person's own git is configured may show in what it makes.
OWN_GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}


def say(text):
    print(text, flush=True)


def run(*command, cwd=None, env=None, timeout=None):
    """Exit status and output of a command."""
    done = subprocess.run(command, cwd=cwd, env=env, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=timeout)
    return done.returncode, done.stdout


def any_kernel(env=os.environ):
    """The environment without the kernel that the tests are run for."""
    return {name: value for name, value in env.items() if name != "KERNEL"}


def git(*command, cwd=LINUX, input="", **environment):
    """What git prints, without the end of the last line; it must succeed."""
    done = subprocess.run(["git", *command], cwd=cwd, env={**os.environ, **environment},
                          text=True, errors="replace", input=input, capture_output=True)
    if done.returncode:
        sys.exit(f"git {' '.join(map(str, command))} fails in {cwd}: {done.stderr}")
    return done.stdout.removesuffix("\n")
