"""Training states that survive a kill (Orbax), and released weights (one small file with its card)."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from eclipsjax._types import InputError
from eclipsjax._whole_file import whole_file

FORMAT = 1


class Checkpoints:
    """The newest training states in a folder: a tree of arrays and a JSON note each."""

    def __init__(self, manager: Any):
        self._manager = manager

    @property
    def latest(self) -> int | None:
        """The last finished step, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, note: dict) -> None:
        """Start to write; it is safe on disk when the next save starts or the folder is closed."""
        import orbax.checkpoint as ocp

        saved = self._manager.save(
            step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), note=ocp.args.JsonSave(note))
        )
        if not saved:
            raise InputError(f"step {step} was not saved: the folder already holds step {self.latest} or a later one.")

    def restore(self, template: Any) -> tuple[Any, dict]:
        """The newest state, shaped and placed as `template`, and its note."""
        import orbax.checkpoint as ocp

        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        found = self._manager.restore(
            self.latest, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), note=ocp.args.JsonRestore())
        )
        return found["state"], found["note"]


@contextmanager
def checkpoints(folder: Path, keep: int = 2) -> Iterator[Checkpoints]:
    """`Checkpoints` in `folder`; leaving waits until the last one is on disk."""
    import orbax.checkpoint as ocp

    # Orbax fails in a background thread on relative paths.
    path = os.path.abspath(folder)
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    with ocp.CheckpointManager(path, options=options) as manager:
        yield Checkpoints(manager)


def save_weights(path: Path, kind: str, config: dict, parameters: Any, card: dict, force: bool = False) -> None:
    """Write released weights: `parameters` (nested dictionaries of arrays), what they are for, and their card.

    An existing file is replaced only with `force`.
    """
    arrays = {name: np.asarray(array) for name, array in _flat(parameters)}
    header = {"format": FORMAT, "kind": kind, "config": config, "card": card, "digest": _digest(arrays)}
    with whole_file(path, force) as place, open(place, "wb") as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)


def load_weights(path: Path, kind: str) -> tuple[dict, Any, dict]:
    """`(config, parameters, card)` of released weights, refused as a whole if anything about them is wrong."""
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights.")
    stored = io.BytesIO(path.read_bytes())
    if not zipfile.is_zipfile(stored):
        raise InputError(f"{path} is damaged or holds no weights (no .npz archive): get or train it again.")
    try:
        with np.load(stored, allow_pickle=False) as file:
            header = dict(json.loads(str(file["header"])))
            arrays = {name: file[name] for name in file.files if name != "header"}
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"{path} is damaged or holds no weights ({reason}): get or train it again.") from None
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path} has weights of format {header.get('format')}, this version reads {FORMAT}: use weights of this "
            "version or train them again."
        )
    if header.get("kind") != kind:
        raise InputError(f"{path} has weights for {header.get('kind')}, not for {kind}.")
    if not isinstance(header.get("config"), dict):
        raise InputError(f"{path} is damaged (it does not say its network's shape): get or train it again.")
    if header.get("digest") != _digest(arrays):
        raise InputError(f"{path} is damaged (its checksum does not match): get or train it again.")
    if not all(np.issubdtype(a.dtype, np.floating) and np.isfinite(a).all() for a in arrays.values()):
        raise InputError(f"{path} has weights that are not finite real numbers: its training diverged, train it again.")
    return header["config"], _nested(arrays), header["card"]


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, name + "/")
        else:
            yield name, value


def _nested(arrays: dict[str, np.ndarray]) -> dict:
    tree: dict = {}
    for name, array in arrays.items():
        *parents, last = [int(part) if part.isdigit() else part for part in name.split("/")]
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = array
    return tree


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
