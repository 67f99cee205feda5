"""Processes as /proc shows them: whose children they are, what they cost; and daemons that end with the benchmark."""

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
NANOSECONDS = 1e9

# How long a daemon may take to end before it is killed.
STOP_SECONDS = 10


def adopt_orphans():
    """Daemons that go into the background become children of this process, so they are found, measured and ended."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children():
    """Every process by its parent, as {parent: [pid, ...]}."""
    found = {}
    for entry in os.listdir("/proc"):
        fields = stat_fields(entry) if entry.isdigit() else None
        if fields:
            found.setdefault(int(fields[1]), []).append(int(entry))
    return found


def tree(roots):
    """These processes and all that descend from them."""
    by_parent = children()
    found, waiting = [], list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(by_parent.get(pid, []))
    return found


def stat_fields(pid):
    """The fields of /proc/PID/stat from the state on, or None when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def cpu_seconds(pid):
    """The CPU time of one process so far, in nanosecond resolution if the kernel keeps it."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / NANOSECONDS
    except (FileNotFoundError, ProcessLookupError, IndexError):
        fields = stat_fields(pid)
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS if fields else 0.0


def thread_cpu_seconds(pid):
    """The CPU time of all threads of one process; schedstat knows the main thread alone."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(cpu_seconds(f"{pid}/task/{thread}") for thread in threads)


def tree_cpu_seconds(roots):
    """The CPU time of whole families, of members too that have ended and whose parent has taken note of it."""
    total = 0.0
    for pid in tree(roots):
        fields = stat_fields(pid)
        if fields:
            total += thread_cpu_seconds(pid) + (int(fields[13]) + int(fields[14])) / CLOCK_TICKS
    return total


def memory_kib(pid, what="VmHWM"):
    """VmHWM, the peak of the resident memory, or VmRSS, what is resident now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1])
    return 0


def tree_memory_kib(roots):
    """The resident memory of whole families, pages that they share counted once for each (as top does)."""
    total = 0
    for pid in tree(roots):
        try:
            total += memory_kib(pid, "VmRSS")
        except (FileNotFoundError, ProcessLookupError):
            pass
    return total


def end(pids):
    """Asks these processes to end, and kills what has not after a while."""
    for asked, limit in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        for pid in pids:
            try:
                os.kill(pid, asked)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            reap(pids)
            pids = [pid for pid in pids if is_alive(pid)]
            if not pids:
                return
            time.sleep(0.02)


def is_alive(pid):
    fields = stat_fields(pid)
    return bool(fields) and fields[0] != "Z"


def reap(pids):
    """Takes note of the adopted among these that have ended. A Popen copes with being late."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass


class Daemon:
    """A program in the foreground whose output goes to a log file."""

    def __init__(self, name, command, log, directory=None, environment=None):
        self.name, self.log = name, Path(log)
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=directory, env={**os.environ, **(environment or {})})
        self.pid = self.process.pid

    def must_run(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} has ended with code {self.process.returncode}: {self.last_words()}")

    def last_words(self, lines=5):
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        end(tree([self.pid]))
        self.process.poll()
