"""A program on a pseudo-terminal, as a person would use it."""

import fcntl
import os
import pty
import select
import subprocess
import termios

from support import BINARY, TIMEOUT_S, environment


def take_terminal():
    """Makes standard input the controlling terminal, so that Ctrl-C arrives as a signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    def __init__(self, *arguments, **variables):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [BINARY, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(TERM="xterm", **variables),
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(slave)
        self.seen = ""

    def read(self):
        """What comes next; empty when the program has closed the terminal."""
        ready, _, _ = select.select([self.master], [], [], TIMEOUT_S)
        if not ready:
            raise AssertionError(f"nothing comes any more; seen: {self.seen!r}")
        try:
            return os.read(self.master, 65536).decode(errors="replace")
        except OSError:
            return ""

    def wait_for(self, text):
        """Reads until `text` was seen, after what earlier calls saw; returns what came before it."""
        while text not in self.seen:
            data = self.read()
            if not data:
                raise AssertionError(f"{text!r} did not come; seen: {self.seen!r}")
            self.seen += data
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self):
        while self.read():
            pass
        code = self.process.wait(timeout=TIMEOUT_S)
        os.close(self.master)
        return code
