"""Every integrator with the options that tests give it, and what several of their tests need."""

import jax.numpy as jnp
import numpy as np

import eclipsjax as ej

SHAPE = (12, 15)
LINEAR = {
    "Poisson": ej.Poisson(),
    "SpectralPoisson": ej.SpectralPoisson(),
    "FrankotChellappa": ej.FrankotChellappa(),
    "HarkerOLeary": ej.HarkerOLeary(),
    "path": ej.PathIntegration(),
    "paths both ways": ej.PathIntegration(both_ways=True),
}
BENT = {
    "Wiener": ej.Wiener(rings=6),
    "LeastAbsolute": ej.LeastAbsolute(iterations=15),
    "Robust": ej.Robust(iterations=12),
    "Despiked": ej.Despiked(ej.Poisson()),
    "ClosedWalls": ej.ClosedWalls(ej.Poisson()),
    "Dislocated": ej.Dislocated(ej.Poisson()),
    "Unmixed": ej.Unmixed(ej.Poisson()),
}
EVERY = {**LINEAR, **BENT, "Bilateral": ej.Bilateral(rounds=3)}


def grid(shape):
    y, x = np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij")
    return x, y


def noise(shape=SHAPE, seed=0):
    return tuple(jnp.asarray(a) for a in np.random.default_rng(seed).normal(size=(2, *shape)))


def centred(z):
    return z - np.mean(z)
