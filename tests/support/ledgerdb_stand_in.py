"""Answers as the ledgerdb command does, on a real bare git repository: init, status, doc get/put, verify, inspect."""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--repo", required=True)
parser.add_argument("--json", action="store_true")
parser.add_argument("--sync", default="true")
parser.add_argument("words", nargs="+")
parser.add_argument("--name")
parser.add_argument("--layout")
parser.add_argument("--history-mode")
parser.add_argument("--file")
parser.add_argument("--deep", action="store_true")
given = parser.parse_args()
WHO = {f"GIT_{role}_{field}": "t@example" for role in ("AUTHOR", "COMMITTER") for field in ("NAME", "EMAIL")}


def git(*arguments: str, stdin: bytes | None = None, index: str = "", check: bool = True) -> str:
    environment = {**os.environ, **WHO, **({"GIT_INDEX_FILE": index} if index else {})}
    command = ["git", "-C", given.repo, *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, check=check, env=environment)
    return done.stdout.decode().strip()


def fail(code: int, kind: str, message: str) -> None:
    print(json.dumps({"code": code, "kind": kind, "message": message}), file=sys.stderr)
    sys.exit(code)


def folder(collection: str, document: str) -> str:
    digest = hashlib.sha256(f"{collection}/{document}".encode()).hexdigest()
    return f"documents/{collection}/{digest[:2]}/{digest[2:4]}/DOC_{digest}"


def commit(path: str, content: bytes) -> str:
    blob = git("hash-object", "-w", "--stdin", stdin=content)
    index = str(Path(given.repo) / f"index-{os.getpid()}")
    head = git("rev-parse", "--verify", "--quiet", "HEAD", check=False)
    if head:
        git("read-tree", head, index=index)
    git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", index=index)
    tree = git("write-tree", index=index)
    Path(index).unlink()
    made = git("commit-tree", tree, *(("-p", head) if head else ()), "-m", path)
    git("update-ref", "HEAD", made)
    return made


def main() -> None:
    match given.words:
        case ["init"]:
            subprocess.run(["git", "init", "--quiet", "--bare", given.repo], check=True, capture_output=True)
            commit("db.yaml", f"name: {given.name}\n".encode())
        case ["status"]:
            head = git("rev-parse", "--verify", "--quiet", "HEAD", check=False)
            print(json.dumps({"path": given.repo, "bare": True, **({"head": head} if head else {})}))
        case ["doc", "get", collection, document]:
            found = git("ls-tree", "-r", "--name-only", "HEAD", f"{folder(collection, document)}/tx/").split()
            if not found:
                fail(3, "not_found", "document not found")
            transaction = json.loads(git("show", f"HEAD:{found[-1]}"))
            print(json.dumps({"doc": transaction["snapshot"], "op": "put"}))
        case ["doc", "put", collection, document]:
            snapshot = json.loads(Path(given.file).read_bytes())
            transaction = {"collection": collection, "doc_id": document, "op": "put", "snapshot": snapshot}
            path = f"{folder(collection, document)}/tx/{time.time_ns()}_put.txpb"
            print(json.dumps({"commit": commit(path, json.dumps(transaction).encode())}))
        case ["integrity", "verify"]:
            checked = git("fsck", "--full", "--strict", check=False)
            paths = git("ls-tree", "-r", "--name-only", "HEAD").split()
            streams = len({path.partition("/tx/")[0] for path in paths if "/tx/" in path})
            issues = [{"stream_path": "", "code": "git", "message": checked}] if checked else []
            print(json.dumps({"streams": streams, "valid": streams - len(issues), "issues": issues}))
        case ["inspect", "blob", blob]:
            print(git("cat-file", "blob", blob))
        case _:
            fail(2, "validation", "unknown command")


main()
