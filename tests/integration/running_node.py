"""One node by hand, as `assay node --home DIR` runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.integration.network_process import ASSAY, get_json, wait_for


class RunningNode:
    """`with RunningNode(home) as node:`; ended whatever happens. Its log goes to node.log, or `log`."""

    def __init__(self, home: Path, log: Path | None = None) -> None:
        self.home = home
        self._log = log or home / "node.log"
        settings = json.loads((home / "node.json").read_text())
        self.api = f"http://127.0.0.1:{settings['api_port']}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RunningNode:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [*ASSAY, "node", "--home", str(self.home)],
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        wait_for("the node", self._answers)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=30)

    def _answers(self) -> Any:
        assert self._process is not None
        assert self._process.poll() is None, self.read_log()
        return self.get_status()

    def get_status(self) -> Any:
        return get_json(self.api + "/v1/status")

    def get_height(self) -> int:
        status = self.get_status()
        return -1 if status is None else int(status["finalized"]["height"])

    def read_log(self) -> str:
        return self._log.read_text()

    def wait_end(self) -> int:
        """The exit code of a node that ends by itself."""
        assert self._process is not None
        return self._process.wait(timeout=60)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=30)
