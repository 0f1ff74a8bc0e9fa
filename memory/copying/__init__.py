"""Copying from one store to another: versions, positions and times kept, resumable at any moment, in constant memory."""

from memory.copying.many import CopyTotals, NotCopied, copy
from memory.copying.one import Copied, Outcome, copy_conversation

__all__ = ["Copied", "CopyTotals", "NotCopied", "Outcome", "copy", "copy_conversation"]
