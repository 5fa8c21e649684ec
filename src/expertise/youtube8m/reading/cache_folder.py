"""Folders that are whole or not there, whatever happens: a crash, a kill, another builder, a loss of power.

A folder is built under another name, locked for as long as its builder lives, and renamed at the end. Folders
of builders that died are swept away.
"""

import fcntl
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GRACE_SECONDS = 60.0  # a folder without a lock is that young while its builder is about to lock it


@contextmanager
def part_folder(root: Path, key: str) -> Iterator[Path]:
    """A folder to build in, locked while its builder lives, and removed unless it is published."""
    while True:
        part = root / f".{key}.{secrets.token_hex(4)}.part"
        part.mkdir()
        lock = os.open(part / "lock", os.O_CREAT | os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (part / "lock").exists():
            break
        os.close(lock)  # a sweeper took the folder for a dead one just before it was locked
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(lock)


def sweep(root: Path) -> None:
    """Remove the folders of builders that died."""
    for part in root.glob(".*.part"):
        try:
            lock = os.open(part / "lock", os.O_RDWR)
        except OSError:
            try:
                dead = time.time() - part.stat().st_mtime > GRACE_SECONDS
            except OSError:
                continue
            if dead:
                shutil.rmtree(part, ignore_errors=True)
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(part, ignore_errors=True)
        except OSError:
            pass  # its builder lives
        finally:
            os.close(lock)


# ---- after a loss of power. To wait until the disk has all bytes takes as long as all the rest. Instead they
# ---- are written behind the scenes, and a cache that was not settled when the machine stopped is built anew


def boot() -> str:
    """Names the time since the machine was started; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def sync(folder: Path) -> None:
    """Wait until the folder is on the disk, and say so in it."""
    arrays = (path for kind in ("*.npy", "*.f32", "*.u8") for path in folder.glob(kind))
    for path in [*arrays, folder / "meta.json", folder]:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    (folder / "settled").touch()


def settle(folder: Path) -> None:
    """Have the bytes written to the disk behind the scenes, where they are not yet."""

    def settle() -> None:
        with suppress(OSError):  # the folder was removed meanwhile, or may only be read
            sync(folder)

    if not (folder / "settled").exists():
        threading.Thread(target=settle, name="settle the cache", daemon=True).start()
