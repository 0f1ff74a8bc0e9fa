"""Servers that run as processes of this machine, from programs that packages carry."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from pwd import struct_passwd

import psutil

from tests.servers import ServerError, wait_until


class ProcessServer:
    """A command that serves `url`; `folder` holds its data and its log, and goes when it stops."""

    def __init__(
        self,
        url: str,
        command: Sequence[str | Path],
        *,
        folder: Path,
        answers: Callable[[str], object],
        working_folder: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        account: struct_passwd | None = None,
    ) -> None:
        self.url = url
        self._command = command
        self._folder = folder
        self._working_folder = working_folder or folder
        self._answers = answers
        self._stop_signal = stop_signal
        self._account = account
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        self.restart()

    def restart(self) -> None:
        """Start the command, and return when it answers."""
        log = self._folder / "log"
        with log.open("ab") as output:
            # A session of its own: Ctrl-C is for the test run, whose fixtures then stop the server in order.
            self._process = subprocess.Popen(
                self._command,
                cwd=self._working_folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=self._account and self._account.pw_uid,
                group=self._account and self._account.pw_gid,
                extra_groups=[] if self._account else None,
            )

        def still_possible() -> None:
            if self._process.poll() is not None:
                tail = log.read_text(errors="replace")[-2000:]
                raise ServerError(f"{self._command[0]} ended with status {self._process.returncode}:\n{tail}")

        try:
            wait_until(lambda: self._answers(self.url), still_possible=still_possible)
        except BaseException:  # Ctrl-C while it starts must not leave it behind
            self.stop()
            raise

    def kill(self) -> None:
        """End the server and all its processes by SIGKILL, and return when they are gone."""
        server = psutil.Process(self._process.pid)
        server.suspend()  # so that it has no more children while we count them
        family = [*server.children(recursive=True), server]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        wait_until(lambda: _check_gone(family), still_possible=lambda: None, seconds=10)

    def stop(self) -> None:
        """End the server, by force if it does not listen, and remove its folder."""
        if self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self._folder)


def _check_gone(family: list[psutil.Process]) -> None:
    """Raise if one still runs; a zombie, which only its new parent can bury, holds nothing any more."""
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                raise ServerError(f"{process} does not end")
