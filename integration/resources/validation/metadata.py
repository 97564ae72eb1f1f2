"""Names, labels and annotations: Kubernetes' rules, and Calico's own for some kinds."""

from __future__ import annotations

import re
from collections.abc import Iterator

from integration.resources.base import Problem, Resource
from integration.resources.fields import LABEL, SUBDOMAIN, check_qualified_name, is_label_value

MAX_NAME = 253
MAX_ANNOTATION_OCTETS = 256 * 1024
ONLY_DEFAULT = {"ClusterInformation", "KubeControllersConfiguration", "IPAMConfiguration"}
ONE_LABEL = (LABEL, 63, "lower-case letters, digits and inner '-', at most 63")
# kind → (pattern, longest, in words)
NAMES: dict[str, tuple[str, int, str]] = {
    "Tier": ONE_LABEL,
    **dict.fromkeys(
        ("NetworkPolicy", "StagedNetworkPolicy"),
        (
            rf"{LABEL}(\.{LABEL})?|(knp|ossg)\.default\.{SUBDOMAIN}",
            MAX_NAME,
            "lower-case letters, digits and inner '-', with at most one '.'",
        ),
    ),
    **dict.fromkeys(
        ("GlobalNetworkPolicy", "StagedGlobalNetworkPolicy"),
        (rf"({LABEL}\.)?{LABEL}", MAX_NAME, "lower-case letters, digits and inner '-', with at most one '.'"),
    ),
}
ANY_NAME = (SUBDOMAIN, MAX_NAME, "lower-case letters, digits, '-' and '.', at most 253")


def check_metadata(resource: Resource) -> Iterator[Problem]:
    metadata = resource.metadata
    yield from check_name(type(resource).__name__, metadata.name)
    for name, value in metadata.labels.items():
        place = f"metadata.labels[{name!r}]"
        if reason := wrong_key(name):
            yield Problem(place, value, f"has a name that {reason}", "[DOMAIN/]NAME, as Kubernetes has it")
        elif not is_label_value(value):
            yield Problem(place, value, "is no value of a label", "at most 63 letters, digits, '-', '_' and '.'")
    for name in metadata.annotations:
        if reason := wrong_key(name.lower()):
            yield Problem(f"metadata.annotations[{name!r}]", None, f"has a name that {reason}", "[DOMAIN/]NAME")
    size = sum(len(text.encode("utf-8", "surrogatepass")) for pair in metadata.annotations.items() for text in pair)
    if size > MAX_ANNOTATION_OCTETS:
        yield Problem("metadata.annotations", None, f"have {size} octets", f"at most {MAX_ANNOTATION_OCTETS}")


def check_name(kind: str, name: str) -> Iterator[Problem]:
    pattern, longest, words = NAMES.get(kind, ANY_NAME)
    if not name:
        yield Problem("metadata.name", None, "is required")
    elif len(name) > longest:
        yield Problem("metadata.name", name, f"has {len(name)} characters", f"at most {longest}")
    elif not re.fullmatch(pattern, name):
        yield Problem("metadata.name", name, "is malformed", words)
    elif kind in ONLY_DEFAULT and name != "default":
        yield Problem("metadata.name", name, "is the name of nothing", "default")


def wrong_key(key: str) -> str:
    """Why `key` is no qualified name; "" if it is one."""
    try:
        check_qualified_name(key)
    except ValueError as error:
        return str(error)
    return ""
