"""Wrong command lines and files: one line that helps, the right exit code, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.fakes import Cli

USAGE, CONFIG = 64, 78
ROOT = Path(__file__).resolve().parents[2]

WRONG_ARGUMENTS = [
    ([], USAGE, "name is missing"),
    (["a", "b"], USAGE, "one VM name is expected, there are 2: 'a', 'b'"),
    (["a-name-of-16-let"], USAGE, "1 to 15 letters"),
    (["no spaces"], USAGE, "1 to 15 letters"),
    (["../vm"], USAGE, "1 to 15 letters"),
    ([""], USAGE, "a name is missing"),
    (["--nonsense", "vm"], USAGE, "no such option"),
    (["-x", "vm"], USAGE, "no such option"),
    (["-c", "2", "vm"], USAGE, "--cpus"),
    (["-U", "495ae2e5", "vm"], USAGE, "removed"),
    (["--uuid", "495ae2e5", "vm"], USAGE, "--uuid: '495ae2e5': a UUID is written like"),
    (["--uuid", "{0f6b2f5e-8e3a-4c1b-9d53-3c7d4b8f2a10}", "vm"], USAGE, "a UUID is written like"),
    (["--v", "vm"], USAGE, "ambiguous"),
    (["vm", "-m"], USAGE, "an argument is missing"),
    (["--windows=1", "vm"], USAGE, "takes no argument"),
    (["--json", "vm"], USAGE, "only with --dry-run"),
    (["-m", "lots", "vm"], USAGE, "-m: 'lots': a memory size is a number"),
    (["-m", "", "vm"], USAGE, "a memory size is a number"),
    (["-m", "64M", "vm"], USAGE, "from 128 MiB"),
    (["-m", "127", "vm"], USAGE, "from 128 MiB"),
    (["-m", "129M", "vm"], USAGE, "multiple of 2 MiB"),
    (["-m", "300G", "vm"], USAGE, "to 252 GiB"),
    (["-m", "0x" + "f" * 5000, "vm"], USAGE, "a memory size is a number"),
    (["-m", "9" * 20 + "g", "vm"], USAGE, "to 252 GiB"),
    (["-m", "-1", "vm"], USAGE, "a memory size is a number"),
    (["--cpus", "0", "vm"], USAGE, "outside 1..8"),
    (["--cpus", "9", "vm"], USAGE, "outside 1..8"),
    (["--cpus", "two", "vm"], USAGE, "not a decimal number"),
    (["--cpu_affinity", "", "vm"], USAGE, "LAPIC id"),
    (["--cpu_affinity", "1,", "vm"], USAGE, "LAPIC id"),
    (["--cpu_affinity", "0x1", "vm"], USAGE, "LAPIC id"),
    (["--cpu_affinity", "1,1", "vm"], USAGE, "given twice"),
    (["--cpu_affinity", "1,2,3,4,5,6,7,8,9", "vm"], USAGE, "outside 1..8"),
    (["--cpu_affinity", "1,2", "--cpus", "3", "vm"], USAGE, "2 LAPIC ids for 3 CPUs"),
    (["-k", "", "vm"], USAGE, "a path is missing"),
    (["-B", "x" * 2048, "vm"], USAGE, "at most 2047 bytes"),
    (["-s", "3", "vm"], USAGE, "expected SLOT,DEVICE"),
    (["-s", "", "vm"], USAGE, "expected SLOT,DEVICE"),
    (["-s", "32,toy", "vm"], USAGE, "slot '32' is not a decimal number from 0 to 31"),
    (["-s", "3:8,toy", "vm"], USAGE, "function '8'"),
    (["-s", "256:1:0,toy", "vm"], USAGE, "bus '256'"),
    (["-s", "a,toy", "vm"], USAGE, "slot 'a'"),
    (["-s", "1:2:3:4,toy", "vm"], USAGE, "not a place"),
    (["-s", "3,", "vm"], USAGE, "not the name of a device"),
    (["-s", "3,/dev/sda", "vm"], USAGE, "not the name of a device"),
    (["-s", "3,toy", "-s", "0:3:0,toy", "vm"], CONFIG, "slot 0:3.0 is used twice"),
    (["-s", "3,virtio-blq,/x", "vm"], CONFIG, "did you mean 'virtio-blk'?"),
    (["-s", "3,frobnicator", "vm"], CONFIG, "there is no device 'frobnicator'"),
    (["-s", "2,passthru,0/2/0", "vm"], CONFIG,
     "-s 2,passthru,0/2/0: the original's emulation of 'passthru' is missing: no plugin provides it"),
    (["-s", "7,xhci,1-1:1-2:cap=apl", "vm"], CONFIG, "the original's emulation of 'xhci' is missing"),
    (["-s", "5,ahci,cd:./w.iso", "vm"], CONFIG, "the original's emulation of 'ahci' is missing"),
    (["-s", "5,ahci-hd,/x", "vm"], CONFIG, "the original's emulation of 'ahci-hd' is missing"),
    (["-s", "7,virtio-rnd", "vm"], CONFIG, "the original's emulation of 'virtio-rnd' is missing"),
    (["-s", "7,vhost-vsock,cid=3", "vm"], CONFIG, "the original's emulation of 'vhost-vsock' is missing"),
    (["-s", "8,wdt-i6300esb", "vm"], CONFIG, "the original's emulation of 'wdt-i6300esb' is missing"),
    (["-s", "6,virtio-gpu,geometry=fullscreen", "vm"], CONFIG, "the original's emulation of 'virtio-gpu' is missing"),
    (["-s", "6,ivshmem,dm:/x,2,0", "vm"], CONFIG, "the original's emulation of 'ivshmem' is missing"),
    (["-s", "3,toy,sise=4", "vm"], CONFIG, "unknown option 'sise'; did you mean 'size'?"),
    (["-s", "3,toy,size=big", "vm"], CONFIG, "expected a whole number"),
    (["-s", "3,toy,size", "vm"], CONFIG, "a value is missing"),
    (["-s", "3,toy,size=1,size=2", "vm"], CONFIG, "given twice"),
    (["-s", "3,toy,loud=maybe", "vm"], CONFIG, "expected on or off"),
    (["-s", "0,hostbridge,x", "vm"], CONFIG, "unknown option 'x'; known: none"),
    (["-s", "3,virtio-blk", "vm"], CONFIG, "-s 3,virtio-blk: "),
    (["-s", "3,virtio-blk,/x,sectorsize=513", "vm"], CONFIG, "powers of two"),
    (["-s", "3,virtio-blk,/x,what", "vm"], CONFIG, "'what'"),
    (["-s", "4,virtio-net,tap0", "vm"], CONFIG, "tap=NAME"),
    (["-s", "4,virtio-net,tap=t,mac=01:00:00:00:00:01", "vm"], CONFIG, "multicast"),
    (["-s", "4,virtio-net", "vm"], CONFIG, "-s 4,virtio-net: "),
    (["-s", "5,virtio-console,@foo:bar", "vm"], CONFIG, "port type 'foo'"),
    (["-l", "com6,stdio", "vm"], USAGE, "com1 to com5"),
    (["-l", "stdio", "vm"], USAGE, "com1 to com5"),
    (["-l", "com1,stdoi", "vm"], USAGE, "no serial backend"),
    (["-l", "com1,tcp:99999", "vm"], USAGE, "TCP port"),
    (["-l", "com5,/dev/pts/1,0x9000", "vm"], USAGE, "IOBASE,IRQ"),
    (["-l", "com5,/dev/pts/1,0x9000,40", "vm"], USAGE, "1 to 23"),
    (["-l", "com1,stdio", "-l", "COM1,tcp:1", "vm"], CONFIG, "com1 is used twice"),
    (["--virtio_poll", "0", "vm"], USAGE, "from 1 to 10000000"),
    (["--virtio_poll", "10000001", "vm"], USAGE, "from 1 to 10000000"),
    (["--shutdown-timeout", "soon", "vm"], USAGE, "expected seconds"),
    (["--shutdown-timeout", "nan", "vm"], USAGE, "expected seconds"),
    (["--shutdown-timeout", "-1", "vm"], USAGE, "expected seconds"),
    (["--hypervisor", "", "vm"], USAGE, "a name is missing"),
    (["--logger_setting", "console", "vm"], USAGE, "expected console,level=N"),
    (["--logger_setting", "consol,level=4", "vm"], USAGE, "console, kmsg and disk"),
    (["--logger_setting", "console,level=x", "vm"], USAGE, "decimal number from 1"),
    (["--logger_setting", ";", "vm"], USAGE, "NAME,level=N"),
    (["--pm_notify_channel", "smoke", "vm"], USAGE, "power_button"),
    (["--intr_monitor", "1,2,3", "vm"], USAGE, "THRESHOLD,PERIOD,DELAY,DURATION"),
    (["--ssram", "L4,vcpu=0,size=4K", "vm"], USAGE, "expected Ln"),
    (["--ssram", "L2,vcpu=0,size=5K", "vm"], USAGE, "multiple of 4K"),
    (["--ssram", ";", "vm"], USAGE, "expected Ln"),
    (["--acpidev_pt", "!", "vm"], USAGE, "HID[,UID]"),
    (["--acpidev_pt", "MSFT0101", "vm"], CONFIG, "is missing"),
    (["--mmiodev_pt", "0xFED40000", "vm"], USAGE, "BASE,SIZE in hex"),
    (["--mmiodev_pt", "0xFED40000,0", "vm"], USAGE, "size is 0"),
    (["--mmiodev_pt", "0xFED40000,0x5000", "vm"], CONFIG, "is missing"),
    (["--vtpm2", "/run/tpm", "vm"], USAGE, "sock_path=PATH"),
    (["--vtpm2", "sock_path=/run/tpm", "vm"], CONFIG, "swtpm is missing"),
    (["--ovmf", "", "vm"], USAGE, "a path is missing"),
    (["--ovmf", "w", "vm"], USAGE, "either one image"),
    (["--ovmf", "code=/c", "vm"], USAGE, "either one image"),
    (["--ovmf", "/a,code=/c,vars=/v", "vm"], USAGE, "either one image"),
    (["--ovmf", "/a,/b", "vm"], USAGE, "two images"),
    (["--hugepages", "maybe", "vm"], USAGE, "expected on, off or auto"),
    (["--intr_monitor", "1,0,3,4", "vm"], USAGE, "period '0' is not a decimal number from 1"),
    (["--plugins", "", "vm"], USAGE, "names with commas"),
    (["--plugins", "a", "--no-plugins", "vm"], USAGE, "not together"),
    (["--config", "", "vm"], USAGE, "a path is missing"),
    (["--config", "/no/such/file.toml", "vm"], CONFIG, "No such file"),
    (["--config", "/", "vm"], CONFIG, "Is a directory"),
    (["--config", "/dev/zero", "vm"], CONFIG, "larger than"),
]  # fmt: skip

WRONG_FILES = [
    ("memsize = ", "not TOML"),
    ("\xff\xfe", "not TOML"),
    ("x = " + "[" * 5000, "not TOML: nested too deeply"),
    ("x = 1\nx = 2", "not TOML"),
    ("cpus = " + "9" * 5000, "not TOML"),
    ("memsice = 512", "memsice: unknown key; did you mean 'memsize'?"),
    ("help = true", "help: only for the command line"),
    ("dry-run = true", "dry-run: only for the command line"),
    ("config = 'x'", "config: only for the command line"),
    ("memsize = 512.0", "memsize: 512.0: expected text or a whole number"),
    ("memsize = true", "memsize: True: expected text or a whole number"),
    ("memsize = [512]", "memsize: expected text or a whole number"),
    ("memsize = 2024-01-01", "memsize: expected text or a whole number"),
    ("memsize = '64M'", "memsize: '64M': memory of"),
    ("windows = 'yes'", "windows: 'yes': expected true or false"),
    ("windows = 1", "windows: 1: expected true or false"),
    ("kernel = 5", "kernel: 5: expected text"),
    ('kernel = "a\\u0000b"', "kernel: a NUL character"),
    ("cpus = 99", "cpus: '99': vcpus 99 is outside"),
    ("cpu_affinity = [0, 'x']", "cpu_affinity: '0,x': LAPIC id 'x'"),
    ("cpu_affinity = [[0]]", "cpu_affinity: expected text or a whole number"),
    ("cpu-affinity = [0]\ncpu_affinity = [1]", "cpu_affinity: the key is given twice"),
    ("name = 5", "name: 5: expected text"),
    ("name = 'a-name-of-16-let'", "name: VM name"),
    ("pci_slot = '3,toy'\n[[device]]\nslot = 3\ntype = 'toy'", "slot 0:3.0 is used twice"),
    ("pci_slot = [3]", "pci_slot: 3: expected text"),
    ("device = 5", "device: expected tables, each under [[device]]"),
    ("[device]\nslot = 3", "device: expected tables, each under [[device]]"),
    ("[[device]]\nslot = 3", "device 1: the key 'type' is required"),
    ("[[device]]\ntype = 'toy'", "device 1: the key 'slot' is required"),
    ("[[device]]\nslot = 3.5\ntype = 'toy'", "device 1: slot: 3.5: expected text or a whole number"),
    ("[[device]]\nslot = 99\ntype = 'toy'", "device 1: slot '99' is not"),
    ("[[device]]\nslot = 3\ntype = 7", "device 1: type: 7: expected text"),
    ("[[device]]\nslot = 3\ntype = '/'", "device 1: '/' is not the name of a device"),
    ("[[device]]\nslot = 3\ntype = 'toy'\noptions = 'size=1'\nloud = true", "either 'options' or options as keys"),
    ("[[device]]\nslot = 3\ntype = 'toy'\nsize = 'x'", "device 1 (0:3.0, toy)"),
    ("[[device]]\nslot = 3\ntype = 'toy'\nsize = 1.5", "device 1 (0:3.0, toy)"),
    ("[[device]]\nslot = 3\ntype = 'toy'\nlabel = 7", "label: 7: expected text"),
    ("[[device]]\nslot = 3\ntype = 'toy'\nlabel = {a = 1}", "expected text"),
    ("[[device]]\nslot = 3\ntype = 'toy'\ncolour = 1", "unknown option 'colour'"),
    ("[[device]]\nslot = 3\ntype = 'virtio-blk'\npath = 5", "device 1 (0:3.0, virtio-blk)"),
    ("[[device]]\nslot = 3\ntype = 'virtio-blk'\npath = '/x'\ndiscard = [1]", "device 1 (0:3.0, virtio-blk)"),
    ("[[device]]\nslot = 3\ntype = 'virtio-net'\ntap = ['t']", "device 1 (0:3.0, virtio-net)"),
    ("[[device]]\nslot = 3\ntype = 'virtio-console'\nports = 1", "device 1 (0:3.0, virtio-console)"),
    ("[[device]]\nslot = 3\ntype = 'passthru'\nbdf = '0/2/0'", "the original's emulation of 'passthru' is missing"),
    ("[[uart]]\nbackend = 'stdio'", "uart 1: '' is not a serial port"),
    ("[[uart]]\nport = 6", "uart 1: 'com6' is not a serial port"),
    ("[[uart]]\nport = 'com1'\nbackend = 'x'", "uart 1: 'x' is no serial backend"),
    ("[[uart]]\nport = 'com1'\nbaud = 9600", "uart 1: unknown key 'baud'; known: port"),
    ("[[uart]]\nport = 'com1'\nio_base = 1\nirq = 3", "uart 1: only com5"),
    ("[[uart]]\nport = 'com5'\nirq = 3", "uart 1: io_base and irq go together"),
    ("[[uart]]\nport = 1\n[[uart]]\nport = 'com1'", "com1 is used twice"),
    ("plugins = 5", "plugins: 5: expected text"),
    ("no-plugins = true\nplugins = 'a'", "not together with --plugins"),
    (
        "mmiodev_pt = '0xFED40000,0x5000'",
        "mmiodev_pt: '0xFED40000,0x5000': not provided: passthrough of MMIO ranges is missing",
    ),
]


def refused(result: tuple[int, str, str], code: int, message: str) -> None:
    """The error and nothing else: *code*, and one line on stderr with *message*."""
    assert result[0] == code
    assert result[1] == ""
    assert result[2].startswith("acrn-dm: ")
    assert message in result[2]
    assert result[2].count("\n") == 1
    assert "Traceback" not in result[2]
    assert "internal error" not in result[2]


@pytest.mark.parametrize(("args", "code", "message"), WRONG_ARGUMENTS)
def test_wrong_command_line_is_one_line_and_the_right_code(cli: Cli, args: list[str], code: int, message: str) -> None:
    refused(cli(*args), code, message)


@pytest.mark.parametrize(("text", "message"), WRONG_FILES, ids=range(len(WRONG_FILES)))
def test_wrong_file_is_one_line_that_names_file_and_key(cli: Cli, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "vm.toml"
    file.write_bytes(text.encode("latin-1"))
    args = ["--config", str(file)] + ([] if text.startswith("name") else ["vm"])
    result = cli(*args)
    refused(result, CONFIG, message)
    assert str(file) in result[2]


def test_newlines_in_a_value_do_not_break_the_line(cli: Cli) -> None:
    refused(cli("-m", "1\n2\n", "vm"), USAGE, "a memory size is a number")
    refused(cli("--a\nb", "vm"), USAGE, "no such option")


def test_undecodable_bytes_are_shown_somehow(cli: Cli) -> None:
    refused(cli("-s", "3,toy,\udcff=1", "vm"), CONFIG, "unknown option")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], USAGE, b"name is missing"),
        (["--no-plugins", "--hypervisor", "nohyp", "vm"], CONFIG, b"no such hypervisor"),
        (["--no-plugins", "-s", b"3,virtio-net,\xff", "vm"], CONFIG, b"virtio-net"),
        (["--no-plugins", "-x", "", b"\xff"], USAGE, b"no such option"),
    ],
)
def test_wrong_command_line_of_a_real_process(args: list[str | bytes], code: int, message: bytes) -> None:
    result = run_process(*args)
    assert (result.returncode, result.stdout) == (code, b"")
    assert message in result.stderr
    assert result.stderr.count(b"\n") == 1


def test_help_of_a_real_process_needs_no_home_no_root_and_no_locale() -> None:
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = run_process("--help", environment=environment)
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"Exit codes" in result.stdout


def run_process(*args: str | bytes, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "acrn_dm", *args]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=60, check=False)
