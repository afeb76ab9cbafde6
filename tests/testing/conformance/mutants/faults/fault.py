"""A fault of the product: where it is, what it makes wrong, and the device that shows it."""

import attrs

from tests.testing.conformance.mutants.plant import Edit


@attrs.frozen(kw_only=True)
class ProductFault:
    """The *edit* breaks *rows*, any one of which is the right answer. *how* and *options* make the device that has it,
    as ``builds`` knows them.
    """

    edit: Edit
    rows: tuple[str, ...]
    text: str
    how: str = "sample"
    options: str = ""

    @property
    def name(self) -> str:
        """The module, and what is wrong there."""
        return f"{self.edit.module.removeprefix('acrn_dm.')}: {self.text}"


def fault(  # noqa: PLR0917
    module: str, text: str, old: str, new: str, rows: tuple[str, ...], how: str = "sample", options: str = ""
) -> ProductFault:
    """Make one, of a module of the package."""
    edit = Edit(module=f"acrn_dm.{module}", old=old, new=new)
    return ProductFault(edit=edit, rows=rows, text=text, how=how, options=options)
