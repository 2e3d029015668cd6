"""Where a command finds its node: `--api URL`, or `--home DIR` of a local network or of one node.

With neither, the address where `assay init` and `assay localnet` put their first node is tried. For
`send`, also where the signing key is. Private keys are read from files that only their owner may read.
"""

from __future__ import annotations

import argparse
import json
import stat
from pathlib import Path
from typing import Any, Final

from consensus.crypto import PrivateKey
from consensus.errors import Rejected
from node import config

DEFAULT_URL: Final = "http://127.0.0.1:26601"  # node0 of a local network with the default base port
LOCALNET_FILE: Final = "localnet.json"


def add_api_arguments(parser: argparse.ArgumentParser, *, several: str = "several are tried in turn") -> None:
    """--api, --home and --json, as every client's command has them. several: what more than one --api is for."""
    parser.add_argument(
        "--api",
        action="append",
        metavar="URL",
        help=f"a node's base URL; {several} (default: {DEFAULT_URL})",
    )
    parser.add_argument(
        "--home", metavar="DIR", help="a local network's folder, or one node's, instead of --api"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_send_arguments(parser: argparse.ArgumentParser) -> None:
    """--fee, --nonce, --wait, --timeout, as every command has them that sends."""
    parser.add_argument("--fee", type=int, metavar="N", help="default: the chain's smallest")
    parser.add_argument("--nonce", type=int, metavar="N", help="default: the account's next")
    parser.add_argument("--wait", action="store_true", help="until it is final, refused or expired")
    parser.add_argument("--timeout", default="30s", metavar="D", help="how long --wait waits (default 30s)")


def find_urls(args: argparse.Namespace) -> list[str]:
    """The base URLs that the arguments name. Raises Rejected."""
    if args.api and args.home:
        raise Rejected("--api and --home exclude each other", mend="give one of them")
    if args.api:
        return list(args.api)
    if args.home:
        return find_urls_of_home(Path(args.home))
    return [DEFAULT_URL]


def find_urls_of_home(home: Path) -> list[str]:
    """The API of every node of a local network, or of the one node whose home it is. Raises Rejected."""
    if (home / LOCALNET_FILE).is_file():
        return [str(node["api"]) for node in _read_entries(home, "nodes", {"api"})]
    if (home / "node.json").is_file():
        settings = config.read_config(home)
        host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
        return [f"http://{host}:{settings.api_port}"]
    raise Rejected(
        f"holds neither {LOCALNET_FILE} nor node.json",
        field=str(home),
        mend="give the folder of a running local network (`assay localnet --home DIR`), or --api URL",
    )


def find_key(key_file: str | None, home: str | None) -> PrivateKey:
    """The signing key: of --key FILE, or the first funded account of --home DIR. Raises Rejected."""
    if key_file is not None:
        return read_private_key(Path(key_file))
    if home is None:
        raise Rejected(
            "no key to sign with", field="--key", mend="give --key FILE, or --home of a local network"
        )
    folder = Path(home)
    if (folder / LOCALNET_FILE).is_file():
        entry = _read_entries(folder, "accounts", {"private_key"})[0]
        try:
            secret = bytes.fromhex(str(entry["private_key"]).removeprefix("0x"))
        except ValueError:
            raise Rejected("holds a key that is not hex", field=str(folder / LOCALNET_FILE)) from None
        return PrivateKey.from_bytes(secret)
    # The founder of a chain of one validator is its only funded account.
    return read_private_key(folder / "validator.key")


def read_private_key(path: Path) -> PrivateKey:
    """The key in a file of one line of hex; refused if others may read it. Raises Rejected."""
    key = config.read_key(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise Rejected(
            f"others may read this key (mode {mode:04o})", field=str(path), mend=f"run: chmod 600 {path}"
        )
    return key


def _read_entries(home: Path, name: str, needed: set[str]) -> list[dict[str, Any]]:
    """The non-empty list `name` of localnet.json, its entries having the `needed` fields."""
    path = home / LOCALNET_FILE
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))[name]
        if entries and all(needed <= entry.keys() for entry in entries):
            return list(entries)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Rejected(
            f"cannot be read ({type(error).__name__})", field=str(path), mend="restart the local network"
        ) from None
    raise Rejected(f"lists no {name}", field=str(path), mend="restart the local network")
