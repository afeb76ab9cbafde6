"""Comparing kernel logs."""

from lab.guest.dmesg import Record, additional_lines, additional_warnings, device_warnings, parse


def test_parse_splits_level_time_and_text() -> None:
    assert parse("<4>[    1.288860] acpi PNP0A03:00: odd\n") == [
        Record(level=4, seconds=1.28886, text="acpi PNP0A03:00: odd")
    ]


def test_parse_of_user_space_lines_leaves_them_out() -> None:
    assert parse("<12>[    1.0] virtio says a daemon\n<30>[    2.0] pci\nno prefix\n") == []


def test_warnings_about_devices_are_found_whatever_their_case() -> None:
    log = "<3>[ 1.0] ACPI Error: bad\n<4>[ 1.1] PCI: odd\n<2>[ 1.2] virtio_net virtio1: dead\n<4>[ 1.3] virtio0: hm\n"
    assert len(device_warnings(log)) == 4


def test_warnings_of_information_level_or_another_subject_are_not_found() -> None:
    assert device_warnings("<6>[ 1.0] pci 0000:00:01.0: fine\n<5>[ 1.1] ACPI: noted\n<3>[ 1.2] floppy: gone\n") == []


def test_additional_warnings_that_differ_in_numbers_alone_are_known() -> None:
    reference = "<4>[ 1.0] pci 0000:00:01.0: BAR 13: no space for [io size 0x0040]\n<4>[ 1.1] PCI: slot 7 at fed00000\n"
    log = "<4>[ 9.9] pci 0000:00:1f.2: BAR 7: no space for [io size 0x1000]\n<4>[ 9.9] PCI: slot 12 at e0000000\n"
    assert additional_warnings(log, reference) == []


def test_additional_warnings_with_other_words_are_new() -> None:
    reference = "<4>[ 1.0] pci 0000:00:01.0: BAR 13: no space\n"
    log = "<4>[ 1.0] pci 0000:00:01.0: BAR 13: failed to assign\n"
    assert additional_warnings(log, reference) == ["pci 0000:00:01.0: BAR 13: failed to assign"]


def test_additional_warnings_known_only_at_information_level_are_new() -> None:
    assert additional_warnings("<4>[ 1.0] ACPI: odd\n", "<6>[ 1.0] ACPI: odd\n") == ["ACPI: odd"]


def test_additional_lines_are_of_any_subject_but_not_of_level_5() -> None:
    log = "<4>[ 1.0] i8042: AUX port disabled\n<5>[ 1.1] DMI: not present\n<3>[ 1.2] disk 7 fails\n"
    assert additional_lines(log, "<3>[ 2.0] disk 12 fails\n<6>[ 2.0] i8042: AUX port disabled\n") == [
        "i8042: AUX port disabled"
    ]
