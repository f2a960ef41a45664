#!/usr/bin/env python3
"""Looks at a Hugging Face cache with the real huggingface_hub, or fills one with it.

    check_hub_cache.py read CACHE            every revision in CACHE is read with HF_HUB_OFFLINE=1 and hashed
    check_hub_cache.py write CACHE TYPE ID   downloads TYPE (model, dataset) ID from HF_ENDPOINT into CACHE
    check_hub_cache.py names                 huggingface_hub's choice of names: patterns and names as JSON on stdin

What it finds is printed as JSON. `cargo test -p pipe-stage-download --test remote interop` runs it both ways when
PIPE_HUB_PYTHON names a Python that has huggingface_hub: `pipe` fills a cache that Python reads, and reads one that Python
has filled. By hand: `python3 scripts/check_hub_cache.py read ~/.cache/huggingface/hub`.
"""

import argparse
import hashlib
import json
import os
import sys
import time


def read(cache):
    """What huggingface_hub makes of a cache, without a network."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import huggingface_hub as hub

    scanned = hub.scan_cache_dir(cache)
    revisions = []
    for repo in scanned.repos:
        for revision in repo.revisions:
            folder = str(revision.snapshot_path)
            names = sorted(
                os.path.relpath(os.path.join(path, name), folder) for path, _, names in os.walk(folder) for name in names
            )
            where = dict(repo_type=repo.repo_type, revision=revision.commit_hash, cache_dir=cache)
            found = hub.snapshot_download(repo.repo_id, allow_patterns=names, **where)
            assert os.path.samefile(found, folder), (found, folder)
            missing = []
            noted = os.path.join(str(repo.repo_path), ".no_exist", revision.commit_hash)
            for path, _, files in os.walk(noted):
                for name in files:
                    name = os.path.relpath(os.path.join(path, name), noted)
                    known = hub.try_to_load_from_cache(
                        repo.repo_id, name, repo_type=repo.repo_type, revision=revision.commit_hash, cache_dir=cache
                    )
                    if known is hub._CACHED_NO_EXIST:
                        missing.append(name)
            for ref in revision.refs:
                # By the name of a branch or tag, too.
                for name in names:
                    hub.hf_hub_download(
                        repo.repo_id, name, repo_type=repo.repo_type, revision=ref, cache_dir=cache
                    )
            revisions.append(
                {
                    "repo": f"{repo.repo_type}s/{repo.repo_id}",
                    "commit": revision.commit_hash,
                    "refs": sorted(revision.refs),
                    "missing": sorted(missing),
                    "files": {name: sha256(os.path.join(folder, name)) for name in names},
                }
            )
    revisions.sort(key=lambda one: (one["repo"], one["commit"]))
    return {
        "huggingface_hub": hub.__version__,
        "warnings": [str(warning) for warning in scanned.warnings],
        "revisions": revisions,
        "layout": layout(cache),
        "listings": listings(cache),
    }


def write(cache, repo_type, repo_id):
    """Fills a cache; asks for a file that is not there, too, as transformers does."""
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError

    where = dict(repo_type=repo_type, cache_dir=cache)
    began = time.monotonic()
    folder = hub.snapshot_download(repo_id, ignore_patterns=["*.md"], **where)
    seconds = time.monotonic() - began
    try:
        hub.hf_hub_download(repo_id, "generation_config.json", **where)
    except EntryNotFoundError:
        pass
    return {
        "huggingface_hub": hub.__version__,
        "commit": os.path.basename(folder),
        "seconds": seconds,
        "layout": layout(cache),
        "listings": listings(cache),
    }


def names():
    """Which names huggingface_hub takes: `[{"allow": [...], "ignore": [...], "names": [...]}, ...]`."""
    from huggingface_hub.utils import filter_repo_objects

    cases = json.load(sys.stdin)
    return [
        list(filter_repo_objects(case["names"], allow_patterns=case["allow"], ignore_patterns=case["ignore"]))
        for case in cases
    ]


def layout(cache):
    """Every path below the cache, links with where they lead."""
    found = {}
    for path, folders, files in os.walk(cache):
        for name in files + [folder for folder in folders if os.path.islink(os.path.join(path, folder))]:
            full = os.path.join(path, name)
            found[os.path.relpath(full, cache)] = os.readlink(full) if os.path.islink(full) else "file"
    return dict(sorted(found.items()))


def listings(cache):
    """The listings of commits (`trees/COMMIT.json`) by their paths."""
    found = {}
    for path, _, files in os.walk(cache):
        for name in files:
            if os.path.basename(path) == "trees":
                with open(os.path.join(path, name), encoding="utf-8") as file:
                    found[os.path.relpath(os.path.join(path, name), cache)] = json.load(file)
    return found


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("read").add_argument("cache")
    writer = commands.add_parser("write")
    for name in ["cache", "type", "id"]:
        writer.add_argument(name)
    commands.add_parser("names")
    arguments = parser.parse_args()
    if arguments.command == "read":
        result = read(arguments.cache)
    elif arguments.command == "write":
        result = write(arguments.cache, arguments.type, arguments.id)
    else:
        result = names()
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
