"""Driver sessions: what a driver does to one device, as plain text that can be printed, kept and replayed."""

from acrn_dm.testing.sessions.actions import (
    Action,
    Advance,
    Collect,
    Kick,
    Poke,
    ReadConfig,
    Reset,
    Send,
    Session,
    Settle,
    Start,
    WriteConfig,
    parse_session,
)
from acrn_dm.testing.sessions.player import Player, SessionFailed, replay

__all__ = [
    "Action",
    "Advance",
    "Collect",
    "Kick",
    "Player",
    "Poke",
    "ReadConfig",
    "Reset",
    "Send",
    "Session",
    "SessionFailed",
    "Settle",
    "Start",
    "WriteConfig",
    "parse_session",
    "replay",
]
