"""Hypothesis strategies for what a device meets: its options, its driver's chains and rings, and whole sessions.

This needs hypothesis (``pip install acrn-dm[test]``); nothing else of ``acrn_dm.testing`` does. ::

    @given(sessions())
    def test_any_driver(session):
        replay(session, lambda machine: machine.add(MyDevice, slot=3))
"""

from acrn_dm.testing.strategies.drivers import actions, sessions
from acrn_dm.testing.strategies.options import options
from acrn_dm.testing.strategies.rings import RingCase, chains, descriptors, rings

__all__ = ["RingCase", "actions", "chains", "descriptors", "options", "rings", "sessions"]
