"""`load(path) -> Stack`: adapters.yaml, validated once into frozen types that everything else is given."""

from adapters.door import MANAGER, RESTRICTED, socket_file
from adapters.fields import ClassifierName
from adapters.labels import DATA_FREE, Label, label, labels
from adapters.load import load, named_adapter
from adapters.ports import check_port
from adapters.save import check_writable, drop_adapter, save_adapter
from adapters.schema import AUTO, BASE, RESERVED, ConfigError, Ref, Stack, path_key, split
from adapters.sections import ADMIN, Adapter, Base, Calibration, Engine, Key, Lag, Router, Ui

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
    "Engine",
    "Key",
    "Label",
    "Lag",
    "Ref",
    "Router",
    "Stack",
    "Ui",
    "check_port",
    "check_writable",
    "drop_adapter",
    "label",
    "labels",
    "load",
    "named_adapter",
    "path_key",
    "save_adapter",
    "socket_file",
    "split",
]
