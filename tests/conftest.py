"""Hostile settings for every test: float64, strict promotion, no silent broadcasting of ranks, shapes checked."""

import itertools
import os
import tempfile

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
_cache = os.environ.get("ECLIPSJAX_TEST_CACHE", os.path.join(tempfile.gettempdir(), "eclipsjax-test-cache"))
jax.config.update("jax_compilation_cache_dir", _cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# With these a child process compiles what its parent did, and finds it in the cache.
_CHILDREN = {
    "JAX_ENABLE_X64": "1",
    "JAX_COMPILATION_CACHE_DIR": _cache,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

_hook = install_import_hook("eclipsjax", "beartype.beartype")
_hook.__enter__()


@pytest.fixture(scope="session")
def child_environment():
    """Variables for a child process that trains as its parent does."""
    return os.environ | _CHILDREN


def pytest_collection_modifyitems(items):
    """Slow tests first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


_MOST_MAPPINGS, _OFTEN = 20_000, 5
_counted = itertools.count(1)


@pytest.fixture(autouse=True)
def few_programs():
    """Every compiled program holds memory mappings, of which a Linux process may have 65,530: beyond, XLA crashes."""
    yield
    if next(_counted) % _OFTEN:
        return
    try:
        with open("/proc/self/maps", "rb") as mappings:
            count = sum(1 for _ in mappings)
    except OSError:
        return
    if count > _MOST_MAPPINGS:
        jax.clear_caches()
