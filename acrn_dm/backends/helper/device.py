"""The device in the machine whose real one is in a process of its own: it shows what that is, and does none of it."""

from collections.abc import Callable, Sequence

from acrn_dm.backends.helper import PROCESS, USER, Wish
from acrn_dm.backends.opaque import OpaqueDevice
from acrn_dm.backends.user.terms import WRITABLE, AfterLoss, Terms
from acrn_dm.base.process import users
from acrn_dm.base.sandbox import STRICT
from acrn_dm.base.sandbox.confine import lacking
from acrn_dm.contract.types import DeviceContext
from acrn_dm.virtio import features
from acrn_dm.virtio.device import VirtioDevice
from acrn_dm.virtio.optional import FeatureJudge
from acrn_dm.virtio.placement import Placement


class AwayDevice(OpaqueDevice):
    """The stand-in for a device like *model*, which was made of the same options and is never opened.

    Identity and layout are the model's; features and configuration space come from the process, for which *wish* is.
    """

    def __init__(self, model: VirtioDevice, context: DeviceContext, wish: Wish) -> None:
        super().__init__(context)
        self.model = model
        self.wish = wish
        self.on_negotiated: Callable[[int], None] = lambda _: None
        self.device_id = model.device_id
        self.pci_class = model.pci_class
        self.in_order = model.in_order
        self.transitional = model.transitional

    @property
    def terms(self) -> Terms:
        """All is the process's. A device that returns chains in order does so by itself, whether it hears of IN_ORDER
        or not.
        """
        return Terms(
            device_id=self.device_id,
            here=features.IN_ORDER,
            theirs=features.DEVICE_BITS,
            writable=WRITABLE.get(self.device_id),
            after_loss=AfterLoss.GO_ON if self.in_order is True else AfterLoss.KEEP,
        )

    @property
    def queue_sizes(self) -> Sequence[int]:
        """The model's."""
        return self.model.queue_sizes

    @property
    def config_size(self) -> int:
        """The model's."""
        return self.model.config_size

    @property
    def placement(self) -> Placement:
        """In another process, whatever stands behind it there."""
        return Placement(backend=PROCESS, text=f"{self.model.placement.text}, {PROCESS}")

    def check(self) -> list[str]:
        """What the model would miss, and what a strict sandbox and its user do: the process is on this host."""
        lines = [f"sandbox={STRICT}: {line}" for line in (lacking() if self.wish.sandbox == STRICT else [])]
        user = self.wish.user
        if user is not None and (why := users.problem(user)):
            lines.append(f"{USER}={user.text}: {why}")
        return [*self.model.check(), *(f"{self.name}: {line}" for line in lines)]

    def refusal(self, accepted: int) -> str | None:
        """As the model says, if it has an opinion."""
        return self.model.refusal(accepted) if isinstance(self.model, FeatureJudge) else None

    def negotiated(self, features: int) -> None:
        """The device may show another configuration."""
        self.on_negotiated(features)
