"""The classes that a user asks for, as arguments of :meth:`pylrp.Network.explain`."""

from __future__ import annotations

import argparse
from typing import Any

from pylrp.cli.session import Session

__all__ = ["explain_request"]


def explain_request(args: argparse.Namespace, session: Session) -> dict[str, Any]:
    """Return the arguments of Network.explain, but for the input, the rules and the layers.

    Raises
    ------
    ValueError
        If a class is unknown, or options exclude each other.
    """
    several = getattr(args, "targets", None)
    if args.target is not None and several is not None:
        raise ValueError("give --target or --targets, not both")
    asked: dict[str, Any] = {
        "start": args.start,
        "convention": args.convention,
        "output": args.top_name,
    }
    if args.target is not None:
        asked["target"] = session.class_number(args.target, "--target")
    if several is not None:
        asked["targets"] = [session.class_number(text, "--targets") for text in several]
    if args.against is not None:
        if several is not None:
            raise ValueError("--against goes with one --target")
        asked["against"] = session.class_number(args.against, "--against")
    return asked
