"""`load(path) -> Stack`: adapters.yaml, validated once into frozen types that everything else is given."""

from adapters.door import MANAGER, RESTRICTED, ControlError, Manage, socket_file
from adapters.fields import ClassifierName, Name
from adapters.labels import DATA_FREE, Label, label, labels
from adapters.load import explain, load, named_adapter, read_yaml, with_adapters
from adapters.ports import check_port
from adapters.save import check_writable, drop_adapter, save_adapter, seen_from
from adapters.schema import AUTO, BASE, RESERVED, ConfigError, Ref, Stack, path_key, split
from adapters.sections import ADMIN, Adapter, Base, Calibration, Engine, Key, Lag, Part, Router, Sampling, Tags, Ui

__all__ = [
    "ADMIN",
    "AUTO",
    "BASE",
    "DATA_FREE",
    "MANAGER",
    "RESERVED",
    "RESTRICTED",
    "Adapter",
    "Base",
    "Calibration",
    "ClassifierName",
    "ConfigError",
    "ControlError",
    "Engine",
    "Key",
    "Label",
    "Lag",
    "Manage",
    "Name",
    "Part",
    "Ref",
    "Router",
    "Sampling",
    "Stack",
    "Tags",
    "Ui",
    "check_port",
    "check_writable",
    "drop_adapter",
    "explain",
    "label",
    "labels",
    "load",
    "named_adapter",
    "path_key",
    "read_yaml",
    "save_adapter",
    "seen_from",
    "socket_file",
    "split",
    "with_adapters",
]
