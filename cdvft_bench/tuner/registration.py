"""Make PEFT know the method: a member of its enumeration of types, and its own registry of methods."""

from importlib import import_module
from typing import Any

NAME = "cdvft"
KNOWN = "0.19 to 0.21"
"""The versions of PEFT that the tests ran with."""

_NEEDED = {
    "peft.config": ("PeftConfig",),
    "peft.mapping": ("PEFT_TYPE_TO_CONFIG_MAPPING",),
    "peft.tuners.tuners_utils": (
        "BaseTuner",
        "BaseTunerLayer",
        "_maybe_include_all_linear_layers",
        "check_adapters_to_merge",
    ),
    "peft.utils": ("TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING", "PeftType", "register_peft_method"),
    "peft.utils.other": ("AuxiliaryTrainingWrapper",),
}


def _unsuited(reason: str) -> ImportError:
    from importlib.metadata import version

    return ImportError(
        f"peft {version('peft')} cannot be extended by cdvft_bench.tuner: {reason}; install peft {KNOWN}"
    )


def require_interface() -> None:
    """See that this version of PEFT offers what the method is built on, before anything is built on it.

    Raises:
        ImportError: it does not, or cannot be imported; the message names what is missing and the versions that do.
    """
    for module, names in _NEEDED.items():
        try:
            found = import_module(module)
        except ImportError as error:
            raise _unsuited(str(error)) from error
        missing = [name for name in names if not hasattr(found, name)]
        if missing:
            raise _unsuited(f"its {module} has no {', '.join(missing)}")


def peft_type() -> Any:
    """PEFT's type of the method, added to its enumeration at the first call.

    PEFT lists its methods in an enumeration and offers no entry point, so a method of another package adds a member.

    Raises:
        ImportError: this version of PEFT cannot be extended in this way.
    """
    from peft.utils import PeftType

    upper = NAME.upper()
    if upper in PeftType.__members__:
        return PeftType[upper]
    try:
        member = str.__new__(PeftType, upper)
        member._name_, member._value_ = upper, upper
        PeftType._member_map_[upper] = member
        PeftType._value2member_map_[upper] = member
        PeftType._member_names_.append(upper)
        type.__setattr__(PeftType, upper, member)
    except (AttributeError, TypeError) as error:
        raise _unsuited(f"its list of methods, PeftType, takes no new member ({error})") from error
    return PeftType[upper]


def register(config_cls: type, model_cls: type) -> None:
    """Register the method with PEFT, once.

    Raises:
        ImportError: see :func:`peft_type`; or another package has registered a method of the same name.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import register_peft_method

    kind = peft_type()
    held = PEFT_TYPE_TO_CONFIG_MAPPING.get(kind)
    if held is None:
        register_peft_method(name=NAME, config_cls=config_cls, model_cls=model_cls)
    elif held is not config_cls:
        raise _unsuited(f"it has a method {kind.value} already, from {held.__module__}")
