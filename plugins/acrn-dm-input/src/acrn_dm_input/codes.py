"""Codes of the input layer (linux/input-event-codes.h): event types, keys, buttons, axes, LEDs; and a US keyboard."""

EV_SYN, EV_KEY, EV_REL, EV_ABS, EV_MSC, EV_SW, EV_LED, EV_SND, EV_REP = 0, 1, 2, 3, 4, 5, 0x11, 0x12, 0x14
SYN_REPORT, SYN_DROPPED = 0, 3
REL_X, REL_Y, REL_WHEEL = 0, 1, 8
ABS_X, ABS_Y = 0, 1
PROP_POINTER = 0
LEDS = ("numlock", "capslock", "scrolllock", "compose", "kana")  # LED_NUML 0 ...
BUTTONS = {"left": 0x110, "right": 0x111, "middle": 0x112, "side": 0x113, "extra": 0x114}

# Keys by code, from KEY_ESC 1 on; "-" where no keyboard has one.
_KEYS = """
esc 1 2 3 4 5 6 7 8 9 0 minus equal backspace tab q w e r t y u i o p leftbrace rightbrace enter leftctrl a s d f g h j
k l semicolon apostrophe grave leftshift backslash z x c v b n m comma dot slash rightshift kpasterisk leftalt space
capslock f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 numlock scrolllock kp7 kp8 kp9 kpminus kp4 kp5 kp6 kpplus kp1 kp2 kp3 kp0 kpdot
- zenkakuhankaku 102nd f11 f12 ro katakana hiragana henkan katakanahiragana muhenkan kpjpcomma kpenter rightctrl kpslash
sysrq rightalt linefeed home up pageup left right end down pagedown insert delete macro mute volumedown volumeup power
kpequal kpplusminus pause scale kpcomma hangeul hanja yen leftmeta rightmeta compose
"""
_FROM_183 = [f"f{n}" for n in range(13, 25)]
KEYS = {
    name: code
    for first, names in ((1, _KEYS.split()), (183, _FROM_183))
    for code, name in enumerate(names, first)
    if name != "-"
}

_NAMES = """
minus equal leftbrace rightbrace semicolon apostrophe grave backslash comma dot slash space tab
"""
_PLAIN = {
    **{letter: letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789"},
    **dict(zip("-=[];'`\\,./ \t", _NAMES.split(), strict=True)),
}
_SHIFTED = {
    **{letter.upper(): letter for letter in "abcdefghijklmnopqrstuvwxyz"},
    **dict(zip(")!@#$%^&*(", "0123456789", strict=True)),
    **{shifted: _PLAIN[plain] for shifted, plain in zip('_+{}:"~|<>?', "-=[];'`\\,./", strict=True)},
}


def strokes(text: str) -> list[tuple[str, ...]]:
    """The chords of a US keyboard that type *text*. Raises ValueError for a character that it has not."""
    chords: list[tuple[str, ...]] = []
    for letter in text:
        if letter in _PLAIN:
            chords.append((_PLAIN[letter],))
        elif letter in _SHIFTED:
            chords.append(("leftshift", _SHIFTED[letter]))
        else:
            raise ValueError(f"a US keyboard has no key for {letter!r}")
    return chords
