"""The plugins that are part of this package: their names, as shown to people, and their modules. The names do not
follow when modules move.
"""

BUILTINS = {
    "hypervisors.hsm": "acrn_dm.hypervisors.acrn.hsm",
    "hypervisors.vhm": "acrn_dm.hypervisors.acrn.vhm",
    "hypervisors.kvm": "acrn_dm.hypervisors.kvm.plugin",
    "hypervisors.sim": "acrn_dm.hypervisors.sim.plugin",
    "virtio.vbs_u": "acrn_dm.backends.vbs_u",
    "vhost.user": "acrn_dm.backends.user",
    "devices.hostbridge": "acrn_dm.devices.hostbridge",
    "devices.i440fx": "acrn_dm.devices.i440fx",
    "devices.lpc": "acrn_dm.devices.lpc",
    "devices.virtio_net": "acrn_dm.devices.virtio_net",
    "devices.virtio_blk": "acrn_dm.devices.virtio_blk",
    "devices.virtio_console": "acrn_dm.devices.virtio_console",
    "devices.vhost_user": "acrn_dm.devices.vhost_user",
    "devices.vfio_user": "acrn_dm.devices.vfio_user",
    "devices.virtio_fs": "acrn_dm.devices.virtio_fs",
}

# What those with devices offer, and the drivers of these: they are imported when one of these is asked for. Their
# backends serve these devices only.
OFFERED = {
    "devices.hostbridge": ("hostbridge", "amd_hostbridge"),
    "devices.i440fx": ("i440fx", "piix4-pm"),
    "devices.lpc": ("lpc",),
    "devices.virtio_net": ("virtio-net", "tap"),
    "devices.virtio_blk": ("virtio-blk", "file", "io_uring", "threads", "python"),
    "devices.virtio_console": ("virtio-console",),
    "devices.vhost_user": ("vhost-user-device",),
    "devices.vfio_user": ("vfio-user",),
    "devices.virtio_fs": ("virtio-fs",),
}
