"""The two emulated regions, each a process of its own, and what they count."""

import json
import signal
import subprocess
import urllib.request

from measure import ProgramFailed, cpu_seconds_of, last_lines


class Region:
    """A running emulator."""

    def __init__(self, tools, *arguments):
        self.log_path = tools.work / "region.log"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [tools.snapferry, "emulate", "--listen", "127.0.0.1:0", *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.endpoint = ""
        self.snapshots = {}
        self.container = ""

    def __enter__(self):
        try:
            self._read_what_it_serves()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_error):
        self._stop()

    def _read_what_it_serves(self):
        for line in self.process.stdout:
            words = line.split()
            if words == ["ready"]:
                return
            if words[0] == "endpoint":
                self.endpoint = words[1]
            elif words[0] == "account":
                self.container = words[-1]
            elif words[0] == "disk" and words[-2].isdigit():
                self.snapshots[int(words[-2])] = words[-1]
        raise ProgramFailed(f"the emulator ended before it was ready:\n{last_lines(self.log_path)}")

    def blob(self, name):
        """The URL of a blob in the region's container, with the container's SAS."""
        path, _, sas = self.container.partition("?")
        return f"{path}/{name}?{sas}"

    def cpu_seconds(self):
        return cpu_seconds_of(self.process.pid)

    def counters(self):
        with urllib.request.urlopen(f"{self.endpoint}/-/counters") as reply:
            return json.load(reply)

    def reset_counters(self):
        request = urllib.request.Request(f"{self.endpoint}/-/counters/reset", method="POST", data=b"")
        urllib.request.urlopen(request).close()

    def _stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self.process.stdout.close()
