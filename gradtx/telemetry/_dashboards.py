"""Copy out the dashboards for Grafana and the rules for Prometheus."""

from __future__ import annotations

import importlib.resources
import os
import pathlib


def dashboards(
    directory: str | os.PathLike[str], *, overwrite: bool = False
) -> list[pathlib.Path]:
    """Write the dashboards of Grafana and the rules of Prometheus to a directory.

    The dashboards are `executive.json`, `on-call.json` and `debug.json`; the rules are
    `alerts.yaml` and `recording.yaml`, which belong together. They are made for what
    the sink `prometheus` serves.

    Args:
      directory: made if it is not there.
      overwrite: whether to replace files of these names that hold something else.

    Returns:
      The paths of the files, in the order of their names.

    Raises:
      FileExistsError: if a file holds something else, edits of yours perhaps; then
        nothing is written.

    Example:
      >>> import tempfile
      >>> from gradtx.telemetry import dashboards
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     print(*(path.name for path in dashboards(directory)))
      alerts.yaml debug.json executive.json on-call.json recording.yaml
    """
    shipped = importlib.resources.files("gradtx.telemetry").joinpath("_dashboard_files")
    files = {
        pathlib.Path(directory, entry.name): entry.read_bytes()
        for entry in sorted(shipped.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith((".json", ".yaml"))
    }
    differ = [
        str(path)
        for path, content in files.items()
        if path.exists() and not (path.is_file() and path.read_bytes() == content)
    ]
    if differ and not overwrite:
        raise FileExistsError(
            f"dashboards: {', '.join(differ)} would be replaced and hold something "
            "else. To replace them, pass overwrite=True; to keep them, choose another "
            "directory."
        )
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        path.write_bytes(content)
    return list(files)
