"""What short runs of hostile clients have to say at their end."""


def assert_harmless(said: str, device: str, clients: int, kinds: tuple[str, ...]) -> None:
    """Each of them was there, and the other device was asked meanwhile; all kinds of harm were done."""
    assert f"{device}: {clients} hostile clients, {clients} answers of the other device meanwhile" in said, said
    assert [kind for kind in ("silence", *kinds) if f"{kind} " not in said] == []
