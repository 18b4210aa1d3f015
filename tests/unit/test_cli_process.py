"""The command as a process of its own: Ctrl-C at any moment, odd environments, what it loads."""

import os
import subprocess
import sys

import numpy as np
import pytest

from eclipsjax.cli import main
from eclipsjax.inverse.reconstruction import Outcome


@pytest.fixture(scope="module")
def scope_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("scope") / "scope.yaml"
    assert main(["scope", "new", str(file)]) == 0
    return file


def clean_environment(**extra):
    return {k: v for k, v in os.environ.items() if not k.startswith("JAX_")} | extra


def run_python(code, **extra):
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment(**extra))
    assert told.returncode == 0, told.stderr
    return told.stdout


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A cache folder that tests share which do not care what compiles."""
    return tmp_path_factory.mktemp("cache")


def run_with_ctrl_c(cache, arguments, trigger):
    """Return code and stderr of a process of its own (Ctrl-C goes to the main thread) in which `trigger` brings
    Ctrl-C."""
    code = (
        "import os, signal, sys, threading\nfrom eclipsjax.cli import _results, main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.argv = {['eclipsjax', *map(str, arguments)]!r}\n{trigger}\nsys.exit(main())"
    )
    environment = clean_environment(XDG_CACHE_HOME=str(cache))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    return done.returncode, done.stderr.strip()


def test_ctrl_c_ends_the_process_with_130(tmp_path):
    """While XLA compiles, when Python's orderly end would crash."""
    out = tmp_path / "out"
    trigger = "threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()"
    ended = run_with_ctrl_c(tmp_path, ["demo", "--no-open", "-o", out], trigger)
    assert ended == (130, "eclipsjax: interrupted: nothing was written.")
    assert not out.exists()


@pytest.mark.parametrize("step", ["run_simulation", "write_images"])
@pytest.mark.parametrize("swallow", ["pass", "raise TypeError"])
def test_ctrl_c_swallowed_by_other_code_still_counts(tmp_path, warm, step, swallow):
    out = tmp_path / "out"
    trigger = (
        f"original = _results.{step}\ndef swallowing(*args):\n"
        f"    try:\n        signal.raise_signal(signal.SIGINT)\n    except KeyboardInterrupt:\n        {swallow}\n"
        f"    return original(*args)\n_results.{step} = swallowing"
    )
    code, said = run_with_ctrl_c(warm, ["demo", "--size", "48", "--no-open", "-o", out], trigger)
    assert (code, said.splitlines()[-1]) == (130, "eclipsjax: interrupted: nothing was written.")
    assert not out.exists()


def test_ctrl_c_while_refining_keeps_the_best(tmp_path, warm):
    """Also where the step that it came in swallowed it: the command goes on and says what happened."""
    out = tmp_path / "out"
    trigger = (
        "from eclipsjax.inverse import refine\noriginal = refine._Search._tell\ndef swallowing(self, point):\n"
        "    original(self, point)\n    if len(self.history) == 2:\n"
        "        try:\n            signal.raise_signal(signal.SIGINT)\n"
        "        except KeyboardInterrupt:\n            pass\n"
        "refine._Search._tell = swallowing"
    )
    code, said = run_with_ctrl_c(warm, ["demo", "--size", "48", "--no-open", "-o", out], trigger)
    assert code == 0 and Outcome.INTERRUPTED.value in said
    assert Outcome.INTERRUPTED.value in (out / "index.html").read_text(encoding="utf-8")
    with np.load(out / "height.npz") as file:
        assert np.isfinite(file["height_nm"]).all() and np.isfinite(file["height_std_nm"]).all()


def test_ctrl_c_that_python_cannot_raise_is_not_printed():
    """In a callback from the garbage collector Python prints an exception and goes on."""
    code = (
        "import signal\nfrom eclipsjax.cli._running import remembering_ctrl_c, stop_if_interrupted\n"
        "class Ends:\n    def __del__(self):\n        signal.raise_signal(signal.SIGINT)\n"
        "with remembering_ctrl_c():\n    Ends()\n"
        "    try:\n        stop_if_interrupted()\n    except KeyboardInterrupt:\n        print('remembered')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment())
    assert (done.stdout.strip(), done.stderr) == ("remembered", "")


@pytest.mark.parametrize("platform", ["foo", "cuda"])
def test_a_platform_that_is_not_here_is_one_sentence(platform, scope_file):
    code = f"import sys\nfrom eclipsjax.cli import main\nsys.exit(main(['scope', 'check', {str(scope_file)!r}]))"
    environment = clean_environment(JAX_PLATFORMS=platform)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if platform == "cuda" and done.returncode == 0:
        pytest.skip("there is one")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"JAX_PLATFORMS is {platform}" in done.stderr and "set it to cpu" in done.stderr


def test_no_home_and_a_foreign_backend_are_no_trouble(tmp_path, scope_file):
    """Neither HOME nor an entry in the list of users; Matplotlib's window system is one that does not exist."""
    code = (
        "import os, pwd, sys\nos.environ.pop('HOME', None)\ndef nobody(*_):\n    raise KeyError\n"
        "pwd.getpwuid = nobody\nfrom eclipsjax.cli import main\n"
        f"sys.exit(main(['scope', 'show', {str(scope_file)!r}, '-o', {str(tmp_path / 'out')!r}]))"
    )
    environment = clean_environment(MPLBACKEND="nonsense") | {"XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "out" / "side.png").exists()


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom eclipsjax.cli import main\n"
        "assert main(['simulate', '--help']) == 0 and main(['--version']) == 0\n"
        "heavy = ('matplotlib', 'diffrax', 'flax', 'optax', 'orbax', 'scipy', 'tifffile')\n"
        "print('LOADED', [m for m in heavy if m in sys.modules])"
    )
    told = run_python(code)
    assert "eclipsjax 0." in told and "--azimuths" in told and "LOADED []" in told


def test_compilation_cache_is_the_command_lines(tmp_path):
    code = (
        "import jax\nfrom eclipsjax.cli._running import use_compilation_cache\n"
        "assert jax.config.jax_compilation_cache_dir in (None, {before!r})\n"
        "use_compilation_cache()\njax.jit(lambda x: x + 1)(1.0).block_until_ready()\n"
        "print(jax.config.jax_compilation_cache_dir)"
    )
    assert run_python(code.format(before=None), XDG_CACHE_HOME=str(tmp_path)).strip() == str(tmp_path / "eclipsjax/xla")
    assert any((tmp_path / "eclipsjax/xla").iterdir())
    own = str(tmp_path / "own")
    assert run_python(code.format(before=own), JAX_COMPILATION_CACHE_DIR=own).strip() == own
