"""Programs that the laboratory runs: each in a group of processes of its own, which ends with it.

Whatever ends a command (its end, a time-out, Ctrl-C), nothing of it is left running. Should the
laboratory itself be killed, the system ends the command that it was waiting for.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time

LOOK_S = 0.01  # how often a command with a limit is looked at
GRACE_S = 1.0  # between asking and killing
PR_SET_PDEATHSIG = 1


class TimedOut(Exception):
    pass


def die_with_parent():
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def has_ended(process, waits):
    """Without taking its number from it, so that its group is still its own."""
    options = os.WEXITED | os.WNOWAIT | (0 if waits else os.WNOHANG)
    return os.waitid(os.P_PID, process.pid, options) is not None


def signal_group(process, number):
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


def end_group(process):
    signal_group(process, signal.SIGTERM)
    limit = time.monotonic() + GRACE_S
    while not has_ended(process, waits=False) and time.monotonic() < limit:
        time.sleep(LOOK_S)


def run(command, output, cwd=None, env=None, timeout_s=None):
    """Output and errors go to the file `output`. -> exit code. Raises TimedOut."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=env,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        limit = None if timeout_s is None else time.monotonic() + timeout_s
        while not has_ended(process, waits=limit is None):
            if time.monotonic() > limit:
                raise TimedOut(f"{command[0]} did not end within {timeout_s:g} s")
            time.sleep(LOOK_S)
    except BaseException:
        end_group(process)
        raise
    finally:
        signal_group(process, signal.SIGKILL)  # what it left behind, too
        process.wait()
    return process.returncode


def run_logged(command, log, cwd=None, env=None, timeout_s=None):
    """-> exit code; everything it prints goes to the end of the log."""
    with open(log, "ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        return run(command, file, cwd, env, timeout_s)


def run_and_read(command, cwd=None, timeout_s=None):
    """-> (exit code, what it printed)."""
    with tempfile.TemporaryFile() as file:
        code = run(command, file, cwd, timeout_s=timeout_s)
        file.seek(0)
        return code, file.read().decode(errors="replace")
