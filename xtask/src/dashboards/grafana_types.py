"""Holds dashboards against the types that Grafana publishes.

Decodes each file given with the foundation SDK, encodes it again, and compares: what
got lost is unknown to the types. The SDK decodes leniently (it takes any value for an
enum, and leaves some parts as plain JSON), so every value is checked against the type
that its field declares, and parts left plain are decoded by that type as well.

Prints one line for each fault; exit code 0 none, 1 some.
"""

import enum
import json
import sys
import typing

from grafana_foundation_sdk.cog import plugins, runtime
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard, units

# Units of one's own, as the SDK describes them at FieldConfig.unit.
UNIT_PREFIXES = ("suffix:", "prefix:", "time:", "si:", "count:", "currency:")
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}


def plain(value):
    """What the SDK would write, as plain JSON."""
    return json.loads(json.dumps(value, cls=JSONEncoder))


def lost(path, before, after):
    """What `before` has and `after` has not, or has otherwise."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from lost(f"{path}.{key}", value, after[key])
            # A null is what leaving the field out means.
            elif value is not None:
                yield f"{path}.{key}: not a field of Grafana's types"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (left, right) in enumerate(zip(before, after)):
            yield from lost(f"{path}[{index}]", left, right)
    elif type(before) is not type(after) or before != after:
        yield f"{path}: {json.dumps(before)} became {json.dumps(after)}"


def is_model(kind):
    return isinstance(kind, type) and hasattr(kind, "from_json")


def decode(from_json, value, path):
    """Decodes plain JSON by a function of the SDK; yields faults, returns the object."""
    try:
        decoded = from_json(value)
    except Exception as error:  # a file may be wrong in any way
        yield f"{path}: the types cannot read it: {type(error).__name__} {error}"
        return None
    yield from lost(path, value, plain(decoded))
    return decoded


def fits(kind, value, path):
    """Faults of a value against the type that its field declares."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is object or kind is typing.Any:
        return
    if origin is typing.Union:
        if value is None and type(None) in inner:
            return
        choices = [choice for choice in inner if choice is not type(None)]
        # The SDK has chosen already.
        choices = [choice for choice in choices if choice is type(value)] or choices
        faults = [list(fits(choice, value, path)) for choice in choices]
        # The nearest choice explains best.
        if all(faults):
            yield from min(faults, key=len)
        return
    if origin is typing.Literal:
        if value not in inner:
            yield f"{path}: {value!r} is none of {inner}"
        return
    if origin is list or kind is list:
        if not isinstance(value, list):
            yield f"{path}: {value!r} is not a list"
            return
        for index, item in enumerate(value):
            yield from fits(inner[0] if inner else object, item, f"{path}[{index}]")
        return
    if origin is dict or kind is dict:
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is not an object"
            return
        for key, item in value.items():
            yield from fits(inner[1] if inner else object, item, f"{path}.{key}")
        return
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            kind(value)
        except ValueError:
            yield f"{path}: {value!r} is not a {kind.__name__} ({', '.join(repr(item.value) for item in kind)})"
        return
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            yield f"{path}: {value!r} is not a number"
        return
    if kind in (int, bool, str):
        # Enums of strings are strings; a bool is not an int here.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            yield f"{path}: {value!r} is not a {kind.__name__}"
        return
    if is_model(kind):
        if isinstance(value, dict):
            value = yield from decode(kind.from_json, value, path)
            if value is None:
                return
        elif not isinstance(value, kind):
            yield f"{path}: {value!r} is not a {kind.__name__}"
            return
        yield from members(value, path)
        return
    # Marker classes, such as that of all queries.
    if not isinstance(value, kind):
        yield f"{path}: {type(value).__name__} is not a {kind.__name__}"


def members(decoded, path):
    """Faults of an object of the SDK, member by member."""
    if isinstance(decoded, runtime.UnknownDataquery):
        yield f"{path}: not a query of a data source that is known; name the type of the panel's datasource"
        return
    hints = typing.get_type_hints(type(decoded))
    for name, value in vars(decoded).items():
        if name not in hints:
            continue
        here = f"{path}.{name.removesuffix('_val')}"
        yield from fits(hints[name], value, here)
        # A field of any type may hold a model, or a query its own class.
        if hints[name] in (object, typing.Optional[object]) and is_model(type(value)):
            yield from members(value, here)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if is_model(type(item)):
                    yield from members(item, f"{here}[{index}]")
    if isinstance(decoded, dashboard.FieldConfig):
        yield from unit_known(decoded.unit, path)
    if isinstance(decoded, dashboard.Panel):
        yield from overrides_known(decoded, path)


def unit_known(unit, path):
    if unit is not None and unit not in UNITS and not str(unit).startswith(UNIT_PREFIXES):
        yield f"{path}.unit: {unit!r} is not a unit of Grafana's"


def overrides_known(panel, path):
    """An override is a field of FieldConfig by name, or of the panel's own after `custom.`."""
    config = runtime.panelcfg_config(panel.type_val)
    if config is None:
        yield f"{path}.type: {panel.type_val!r} is not a panel that Grafana comes with"
        return
    sources = panel.field_config.overrides if panel.field_config else []
    for index, override in enumerate(sources):
        for item, entry in enumerate(override.properties):
            here = f"{path}.field_config.overrides[{index}].properties[{item}]"
            name, value = plain(entry)["id"], plain(entry)["value"]
            own = name.removeprefix("custom.")
            if own == name:
                decoded = yield from decode(dashboard.FieldConfig.from_json, {name: value}, here)
            elif config.field_config_from_json_hook is None:
                yield f"{here}: panel {panel.type_val} has no {name}"
                continue
            else:
                decoded = yield from decode(config.field_config_from_json_hook, {own: value}, here)
            if decoded is not None:
                yield from members(decoded, here)


def check(path):
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    # A part may be reached by its field and by what it is.
    faults = dict.fromkeys(fits(dashboard.Dashboard, data, "dashboard"))
    for fault in faults:
        print(f"{path}: {fault}")
    return not faults


if __name__ == "__main__":
    plugins.register_default_plugins()
    sys.exit(0 if all([check(path) for path in sys.argv[1:]]) else 1)
