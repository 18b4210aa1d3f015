"""The line that no other library of the field has: every public docstring says where its derivative is exact."""

import inspect

import eclipsjax as ej

ROOMS = ("eclipsjax.instrument", "eclipsjax.specimen", "eclipsjax.imaging")


def documented():
    """Public functions and records of the physics, and the public methods that they define."""
    for name, thing in [*vars(ej).items(), *vars(ej.synthetic).items()]:
        if name.startswith("_") or not getattr(thing, "__module__", "").startswith(ROOMS):
            continue
        yield name, thing
        for method, value in vars(thing).items() if inspect.isclass(thing) else ():
            value = getattr(value, "__func__", value)
            if not method.startswith("_") and inspect.isfunction(value):
                yield f"{name}.{method}", value


def test_the_search_finds_them():
    assert {"render", "Microscope", "Microscope.annular", "UniformField.sample"} <= {name for name, _ in documented()}


def test_docstrings_say_where_the_gradient_is_exact():
    assert not [name for name, thing in documented() if "Gradient:" not in (inspect.getdoc(thing) or "")]
