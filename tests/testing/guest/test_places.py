"""Where guests' files are kept."""

from pathlib import Path

import pytest

from acrn_dm.testing.guest import places


@pytest.mark.parametrize(
    ("variables", "home"),
    [
        ({}, "/nobody/.cache/acrn-dm"),
        ({"XDG_CACHE_HOME": "/caches"}, "/caches/acrn-dm"),
        ({"XDG_CACHE_HOME": "relative"}, "/nobody/.cache/acrn-dm"),  # to be ignored, says the specification
        ({"XDG_CACHE_HOME": "/caches", "ACRN_DM_CACHE": "/own"}, "/own"),
    ],
)
def test_home_is_the_users_cache_or_what_the_environment_says(
    variables: dict[str, str], home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", places.HOME, places.CONSOLES):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/nobody", **variables}.items():
        monkeypatch.setenv(name, value)
    assert (places.home(), places.consoles()) == (Path(home), Path(home, "consoles"))
