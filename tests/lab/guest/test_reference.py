"""The inner guest's initramfs boots under plain QEMU, drives each device there, and reports its kernel log."""

import pytest

from acrn_dm.testing.guest.inner.initramfs import guest_init, guest_initramfs
from acrn_dm.testing.guest.kernels.debian import Kernel
from lab.guest.dmesg import additional_warnings, parse
from lab.guest.reference import REFERENCE, ReferenceBoot, boot_reference

pytestmark = pytest.mark.lab


LSPCI = '\nlspci -nn > "$(port_named report)"\n'


@pytest.fixture(scope="module")
def reference(lab_kernel: Kernel) -> ReferenceBoot:
    """What the reference guest says, and lspci in it, whose lines are none of a kernel's log."""
    init = guest_init(REFERENCE)
    assert "\nreport_dmesg\n" in init
    init = init.replace("\nreport_dmesg\n", f"{LSPCI}report_dmesg\n")
    return boot_reference(lab_kernel, guest_initramfs(lab_kernel, init=init, lspci=True))


def test_reference_log_is_the_kernels(reference: ReferenceBoot, lab_kernel: Kernel) -> None:
    assert f"Linux version {lab_kernel.version}" in parse(reference.dmesg)[0].text


def test_reference_guest_has_its_disk(reference: ReferenceBoot) -> None:
    assert any("[vda] 8192 512-byte logical blocks" in record.text for record in parse(reference.dmesg))


def test_reference_compared_with_itself_has_nothing_new(reference: ReferenceBoot) -> None:
    assert additional_warnings(reference.dmesg, reference.dmesg) == []


def test_guest_shows_its_pci_functions_by_name(reference: ReferenceBoot) -> None:
    assert "Red Hat, Inc. Virtio block device [1af4:1001]" in reference.dmesg


def test_initramfs_of_the_same_content_is_made_once(lab_kernel: Kernel) -> None:
    first = guest_initramfs(lab_kernel, init="#!/bin/sh\n")
    made = first.stat().st_ino
    assert guest_initramfs(lab_kernel, init="#!/bin/sh\n") == first
    assert first.stat().st_ino == made  # not written anew; its time tells when it was asked for


def test_initramfs_of_other_settings_is_another(lab_kernel: Kernel) -> None:
    first = guest_initramfs(lab_kernel, init="#!/bin/sh\n")
    assert guest_initramfs(lab_kernel, init="#!/bin/sh\n", settings={"A": "1"}) != first
