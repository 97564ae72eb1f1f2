"""What an ADD waits for before it begins (readiness gates) and before it answers (Felix has programmed the policy)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from integration.cni.errors import TRY_AGAIN_LATER, CNIError
from integration.cni.identity import Identity
from integration.cni.network_config import NetworkConfig

GATES_TIMEOUT_S, GATE_PAUSE_S = 30.0, 5.0
POLL_S = 0.01
SAFE = "$&+=:@"  # what Go's PathEscape leaves, beyond letters, digits and -_.~


async def wait_for_readiness(gates: Sequence[str]) -> None:
    """Every URL must answer 2xx or 3xx within 30 s. Raises CNIError 11."""
    if not gates:
        return
    import aiohttp

    loop = asyncio.get_running_loop()
    ends_at = loop.time() + GATES_TIMEOUT_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=GATE_PAUSE_S)) as session:
        for gate in gates:
            while why := await _why_not(session, gate):
                if loop.time() >= ends_at:
                    raise CNIError(TRY_AGAIN_LATER, f"the readiness gate {gate} is not ready: {why}")
                await asyncio.sleep(min(GATE_PAUSE_S, max(0.0, ends_at - loop.time())))


async def _why_not(session: object, gate: str) -> str:
    import aiohttp

    assert isinstance(session, aiohttp.ClientSession)
    try:
        async with session.get(gate, allow_redirects=False) as answer:
            return "" if answer.status < 400 else f"status {answer.status}"
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return str(error) or type(error).__name__


async def wait_for_policy(config: NetworkConfig, identity: Identity, told: Callable[..., None]) -> None:
    """Until Felix's status file says that the endpoint's rules are in the kernel; late ones are a warning only."""
    if not config.policy_setup_timeout_s:
        return
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + config.policy_setup_timeout_s
    folder = Path(config.status_folder)
    while loop.time() < ends_at:
        if _is_up(folder, identity):
            return
        await asyncio.sleep(POLL_S)
    told(
        "cni_policy_late", level="warning", container=identity.container_id, endpoint=identity.key.name,
        waited_s=config.policy_setup_timeout_s,
    )  # fmt: skip


def _is_up(folder: Path, identity: Identity) -> bool:
    try:
        path = folder / status_file_name(identity)
        return bool(json.loads(path.read_text()).get("ifaceName") == identity.host_interface)
    except (OSError, ValueError, AttributeError):
        return False


def status_file_name(identity: Identity) -> str:
    """As Felix calls it: the three parts of the endpoint's key, each escaped."""
    workload = f"{identity.namespace}/{identity.workload}"
    return " ".join(quote(part, safe=SAFE) for part in (identity.orchestrator, workload, identity.endpoint))
