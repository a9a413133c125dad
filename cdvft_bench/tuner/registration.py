"""Make PEFT know the method: a member of its enumeration of types, and its own registry of methods."""

from __future__ import annotations

from typing import Any

NAME = "cdvft"
OLDEST = "0.17"


def peft_type() -> Any:
    """PEFT's type of the method, added to its enumeration at the first call.

    PEFT lists its methods in an enumeration and offers no entry point, so a method of another package adds a member.

    Raises:
        ImportError: this version of PEFT cannot be extended in this way.
    """
    import peft

    try:
        from peft.utils import PeftType, register_peft_method  # noqa: F401 - its presence is what is asked
    except ImportError as error:
        raise ImportError(
            f"peft {peft.__version__} cannot be extended by methods of other packages; install peft >= {OLDEST}"
        ) from error
    upper = NAME.upper()
    if upper in PeftType.__members__:
        return PeftType[upper]
    member = str.__new__(PeftType, upper)
    member._name_, member._value_ = upper, upper
    try:
        PeftType._member_map_[upper] = member
        PeftType._value2member_map_[upper] = member
        PeftType._member_names_.append(upper)
        type.__setattr__(PeftType, upper, member)
    except (AttributeError, TypeError) as error:
        raise ImportError(
            f"peft {peft.__version__} lists its methods in a form that cannot be extended; install one from {OLDEST} "
            "to 0.21, which are known to work"
        ) from error
    return PeftType[upper]


def register(config_cls: type, model_cls: type) -> None:
    """Register the method with PEFT, once.

    Raises:
        ImportError: see :func:`peft_type`; or another package has registered a method of the same name.
    """
    import peft
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import register_peft_method

    kind = peft_type()
    held = PEFT_TYPE_TO_CONFIG_MAPPING.get(kind)
    if held is None:
        register_peft_method(name=NAME, config_cls=config_cls, model_cls=model_cls)
    elif held is not config_cls:
        raise ImportError(
            f"peft {peft.__version__} has a method {kind.value} already, from {held.__module__}; use that one, or "
            "import cdvft_bench.tuner in a process without it"
        )
