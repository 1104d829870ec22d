"""What this process takes at present and has taken at most: memory in GiB, of a GPU too where it uses one."""

import resource
import sys
from typing import Any

import psutil

GIB = 2**30


def memory() -> float:
    """The memory that this process holds now."""
    return psutil.Process().memory_info().rss / GIB


def peak_memory() -> float:
    """The most that it has held, which the system notes a little late."""
    return max(memory(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB)


def cuda() -> Any:
    """torch.cuda where this process uses a GPU by it, else None; torch is not imported for that."""
    found = getattr(sys.modules.get("torch"), "cuda", None)
    is_initialized = getattr(found, "is_initialized", None)  # torch may be half imported
    return found if is_initialized and is_initialized() else None


def peak_gpu_memory() -> float | None:
    """The most that its tensors have taken of its GPU; None without one."""
    return found.max_memory_allocated() / GIB if (found := cuda()) else None
