"""Follows a folder of TUF metadata with python-tuf's ngclient.

`client.py ROOT STORE METADATA TARGETS NAME…` trusts the file ROOT, keeps what it trusts in the folder STORE, reads
`<role>.json` and `<n>.root.json` in METADATA and targets below TARGETS. Prints what it believes as JSON: versions of all
roles, and of each target its length and SHA-256. What it refuses is an error on standard error, and code 1.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlparse

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.api.metadata import Metadata
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface


class Files(FetcherInterface):
    """Answers as a web server would."""

    def _fetch(self, url):
        path = Path(unquote(urlparse(url).path))
        if not path.is_file():
            raise DownloadHTTPError(f"no file {path}", 404)
        return iter([path.read_bytes()])


def follow(root, store, metadata, targets, *names):
    with tempfile.TemporaryDirectory() as folder:
        updater = Updater(
            store,
            Path(metadata).as_uri(),
            folder,
            Path(targets).as_uri(),
            Files(),
            bootstrap=Path(root).read_bytes(),
        )
        updater.refresh()
        product = names[0].split("/")[0] if names else "router"
        # A path that nobody names: ngclient asks every role that might, and so reads all of them. By a path that
        # release names it would read release and stop.
        assert updater.get_targetinfo(f"{product}/0/nothing") is None
        found = {}
        for name in names:
            info = updater.get_targetinfo(name)
            if info is None:
                raise RepositoryError(f"nobody names the target {name}")
            data = Path(updater.download_target(info)).read_bytes()
            found[name] = {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    roles = ("root", "timestamp", "snapshot", "targets", "release", "rollout", "halt")
    stored = {role: Path(store, f"{role}.json").read_bytes() for role in roles}
    versions = {role: Metadata.from_bytes(data).signed.version for role, data in stored.items()}
    return {"versions": versions, "targets": found}


if __name__ == "__main__":
    try:
        print(json.dumps(follow(*sys.argv[1:])))
    except (RepositoryError, DownloadError) as refused:
        sys.exit(f"{type(refused).__name__}: {refused}")
