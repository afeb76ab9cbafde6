"""Launch lines that people have, word for word: from generated scripts, documents, bug reports and commit messages.

``text`` is what stands in the script. Placeholders that the script leaves to its surroundings are shell variables
(``variables``) or positional parameters (``parameters``).
"""

import re
from collections.abc import Mapping

import attrs

HOST_MAC = "90:12:10:b5:7d:f7"  # of the host's network card, in some scripts


@attrs.frozen(kw_only=True)
class Script:
    """One launch line. An *array* is the elements of a bash array: blanks separate, nothing else means anything."""

    text: str
    variables: Mapping[str, str] = attrs.field(factory=dict)
    parameters: tuple[str, ...] = ()
    array: bool = False

    def changed(self, *changes: tuple[str, str]) -> "Script":
        """The same line after somebody edited it: (old, new) each of which has to be there."""
        text = self.text
        for old, new in changes:
            if old not in text:
                raise ValueError(f"{old!r} is not in the script")
            text = text.replace(old, new)
        return attrs.evolve(self, text=text)

    @property
    def command(self) -> list[str]:
        """What runs it."""
        text = re.sub(r"\S+", r'"\g<0>"', self.text) if self.array else self.text
        return ["bash", "-c", text, "launch", *self.parameters]


# A: generated, a Windows guest. misc/config_tools/data/generic_board/sample_launch_scripts/launch_user_vm_id1.sh
WINDOWS = Script(
    text="acrn-dm --windows --cpu_affinity 0,2 -m 4096M --ovmf /usr/share/acrn/bios/OVMF.fd -s 1:0,lpc "
    "-s 0:0,hostbridge -s 3,virtio-console,@stdio:stdio_port "
    "-s 4,virtio-net,tap=WaaG,mac_seed=${mac:0:17}-POST_STD_VM1 -s 5,virtio-blk,./win10-ltsc.img "
    "-s 2,passthru,0/2/0 --logger_setting console,level=4;kmsg,level=3;disk,level=5 POST_STD_VM1",
    variables={"mac": HOST_MAC},
    array=True,
)

# B: generated, a real-time guest. .../launch_user_vm_id2.sh
REAL_TIME = Script(
    text="acrn-dm --cpu_affinity 4,6 -m 1024M --ovmf /usr/share/acrn/bios/OVMF.fd -s 0:0,hostbridge "
    "--virtio_poll 1000000 -s 3,virtio-console,@stdio:stdio_port "
    "-s 4,virtio-net,tap=RT,mac_seed=${mac:0:17}-POST_RT_VM1 "
    "-s 5,virtio-blk,./core-image-weston-intel-corei7-64.wic --rtvm --lapic_pt "
    "--logger_setting console,level=4;kmsg,level=3;disk,level=5 POST_RT_VM1",
    variables={"mac": HOST_MAC},
    array=True,
)

# C: the tutorial for ACRN on QEMU. doc/tutorials/acrn_on_qemu.rst
ON_QEMU = Script(
    text=r"""acrn-dm -m $mem_size -s 0:0,hostbridge \
-s 3,virtio-blk,~/UserVM.img \
-s 4,virtio-net,tap=tap0 \
--cpu_affinity 1 \
-s 5,virtio-console,@stdio:stdio_port \
--ovmf ~/OVMF.fd \
$logger_setting \
$vm_name""",
    variables={
        "mem_size": "1024M",
        "logger_setting": "--logger_setting console,level=5;kmsg,level=6;disk,level=5",
        "vm_name": "UserVM",
    },
)

# D: the tutorial for Windows; a backslash is missing behind the disk. doc/tutorials/using_windows_as_user_vm.rst
WINDOWS_TUTORIAL = Script(
    text=r"""acrn-dm -m $mem_size -s 0:0,hostbridge -s 1:0,lpc -l com1,stdio \
  -s 2,passthru,0/2/0 \
  -s 8,virtio-net,tap=tap0 \
  -s 4,virtio-blk,./win10-ltsc.img
  -s 5,ahci,cd:./Windows10.iso \
  -s 6,ahci,cd:./winvirtio.iso \
  -s 7,passthru,0/14/0,d3hot_reset \
  --ovmf ./OVMF.fd \
  --windows \
  $vm_name""",
    variables={"mem_size": "4096M", "vm_name": "win"},
)

# E: the description of the host bridge. doc/developer-guides/hld/hostbridge-virt-hld.rst
HOST_BRIDGE = Script(
    text=r"""acrn-dm -m $mem_size -s 0:0,hostbridge \
-s 5,virtio-console,@stdio:stdio_port \
-s 6,virtio-hyper_dmabuf \
-s 3,virtio-blk,/home/acrn/UserVM.img \
-s 4,virtio-net,tap=tap0,mac_seed=$mac_seed \
-s 7,virtio-rnd \
--ovmf /usr/share/acrn/bios/OVMF.fd \
$logger_setting \
$vm_name""",
    variables={
        "mem_size": "2048M",
        "mac_seed": f"{HOST_MAC}-vm1",
        "logger_setting": "--logger_setting console,level=4;kmsg,level=3",
        "vm_name": "vm1",
    },
)

# F: vhost, from a user's report (projectacrn/acrn-hypervisor issues 7790 and 7803), which leaves out the end.
VHOST = Script(
    text="acrn-dm --cpu_affinity 64,66 -m 1024M --ovmf /usr/share/acrn/bios/OVMF.fd -s 0:0,hostbridge "
    "--virtio_poll 1000000 -s 3,virtio-console,@stdio:stdio_port "
    "-s 4,virtio-net,tap=RT,vhost,mac_seed=90:12:10:b5:7d:f7-POST_RT_VM1 "
    "-s 5,virtio-blk,/root/preempt_rt/core-image-weston-intel-corei7-64.wic --rtvm --lapic_pt $rest",
    variables={"rest": "--logger_setting console,level=4;kmsg,level=3;disk,level=5 POST_RT_VM1"},
)

# G: a kernel without firmware; its tap is written as before 2022. v3.0:.../sample_launch_scripts/launch_ubuntu.sh
UBUNTU = Script(
    text=r"""acrn-dm -A -m $mem_size -s 0:0,hostbridge \
  -s 3,virtio-blk,/home/guestl1/acrn-dm-bins/ubuntuUOS.img \
  -s 4,virtio-net,tap0 \
  -s 5,virtio-console,@stdio:stdio_port \
  -k /home/guestl1/acrn-dm-bins/bzImage_uos \
  -B "earlyprintk=serial,ttyS0,115200n8 consoleblank=0 root=/dev/vda1 rw rootwait maxcpus=1 nohpet console=tty0 """
    r"""console=hvc0 console=ttyS0 no_timer_check ignore_loglevel log_buf_len=16M tsc=reliable" \
  $logger_setting \
  $vm_name""",
    variables={
        "mem_size": "1024M",
        "logger_setting": "--logger_setting console,level=4;kmsg,level=3;disk,level=5",
        "vm_name": "uos",
    },
)

# H: of 2019. v1.0:devicemodel/samples/nuc/launch_uos.sh
NUC = Script(
    text=r"""acrn-dm -A -m $mem_size -c $2 -s 0:0,hostbridge -s 1:0,lpc -l com1,stdio \
  -s 2,pci-gvt -G "$3" \
  -s 5,virtio-console,@pty:pty_port \
  -s 6,virtio-hyper_dmabuf \
  -s 3,virtio-blk,/home/clear/uos/uos.img \
  -s 4,virtio-net,tap0 \
  --mac_seed $mac_seed \
  -k /usr/lib/kernel/default-iot-lts2018 \
  -B "root=/dev/vda3 rw rootwait maxcpus=$2 nohpet console=tty0 console=hvc0" $vm_name""",
    variables={"mem_size": "1024M", "mac_seed": f"{HOST_MAC}-vm1", "vm_name": "vm1"},
    parameters=("1", "2", "64 448 8"),
)

# I: disks in commit messages (7e6a23964, fed8ce513, 80b1edabf, 5306d9e7d).
DISKS = (
    "iothread=2,mq=2,/dev/nvme1n1,writeback,aio=io_uring",
    "iothread,mq=2,/dev/nvme1n1,writeback,aio=threads",
    "iothread=3@0/*/1,mq=3,/dev/nvme1n1",
    "/dev/nvme1n1,no_bst_block",
    "/dev/nvme1n1,writeback,nocache",
)
