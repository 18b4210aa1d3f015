"""Hostile settings for every test: float64, strict promotion, no silent broadcasting of ranks, shapes checked."""

import os
import tempfile

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
_cache = os.environ.get("ECLIPSJAX_TEST_CACHE", os.path.join(tempfile.gettempdir(), "eclipsjax-test-cache"))
jax.config.update("jax_compilation_cache_dir", _cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

_hook = install_import_hook("eclipsjax", "beartype.beartype")
_hook.__enter__()
