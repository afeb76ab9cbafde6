"""Rows of device kinds that no rule decides, each with its reason: by id, or by the beginning of ids (``net.ff.*``)."""

from collections.abc import Mapping

PERMISSION = "a permission: nothing a device does breaks it"
BIG_ENDIAN = "shows only to a guest whose processor is big-endian"

NOT_TESTABLE: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("net.standby", "net.tx.outer_nh.use", "net.tx.hdr_len.exact", "net.tx.hdr_len.hint"),
            *("net.rx.outer_nh.set", "net.rx.needs_csum.may", "net.rx.data_valid.may", "net.rx.tunnel.csum_may"),
            *("net.legacy.mac_defer_rx", "net.mq.modes", "net.mq.modes_both", "net.mq.auto.random"),
            *("net.coal.best_effort", "blk.zoned.last_zone", "blk.zoned.max_append_zero", "blk.zoned.auto_close"),
            *("blk.capacity.change", "blk.discard.dealloc", "blk.wz.unmap_dealloc", "blk.wz.may_unmap_change"),
            *("blk.stable.no_flush_offered", "console.multi_ports", "console.multi_console_ports"),
            *("balloon.must_tell_host.fail", "balloon.inflate.modify", "balloon.inflate.modify_mth"),
            *("balloon.fph.modify", "balloon.poison.hint", "balloon.report.modify", "input.drop"),
            *("vsock.feat.seq_implies_stream", "i2c.fail.rest", "gpio.order.other_lines", "gpio.order.other_resp"),
        ),
        PERMISSION,
    ),
    **dict.fromkeys(
        (
            *("net.legacy.cfg_endian", "net.legacy.hdr_endian", "net.legacy.mac_table_endian"),
            *("net.legacy.vlan_endian", "net.legacy.mq_endian", "net.legacy.offloads_endian"),
            *("blk.legacy.cfg_endian", "blk.legacy.req_endian", "console.legacy.cfg_endian"),
            *("console.legacy.ctrl_endian", "balloon.legacy.cfg_le", "balloon.legacy.stats_endian"),
            "balloon.legacy.fph_endian",
        ),
        BIG_ENDIAN,
    ),
    "net.rx.needs_csum.validate": "whether what precedes an open checksum was validated does not show",
    "net.stats.wrap": "a counter of 64 bits does not overflow in a test",
    "blk.legacy.init": "says no more than blk.legacy.wce_status and blk.legacy.wce_features",
    "blk.wz.may_unmap_cfg": "whether a medium can deallocate does not show",
    "blk.wz.may_unmap_notify": "whether a medium can deallocate does not show",
    "blk.lifetime.offer": "whether the storage has such metrics does not show",
    "blk.legacy.barrier_after": "when the host begins a request does not show",
    "i2c.hw_behaviour": "what hardware does is what i2c.fail.first and d.i2c.zero_len ask for",
    "d.vsock.event_reset": "comes with a migration, which there is not",
}

NOT_IMPLEMENTED: Mapping[str, str] = {
    "net.ff.*": "no rules: flow filters (1.4) are offered by no device here",
    "net.ipsec.*": "no rules: IPsec (1.4) is offered by no device here",
    "net.rx.sec*": "no rules: IPsec (1.4) is offered by no device here",
    "net.rx.tunnel.*": "no rules: tunnel segmentation for the guest (1.4) is offered by no device here",
    "net.rx.rsc.*": "no rules: coalescing information (RSC_EXT) is offered by no device here",
    "net.innerhash.*": "no rules: inner header hashes are offered by no device here",
    "d.net.innerhash.*": "no rules: inner header hashes are offered by no device here",
    "net.rssctx.*": "no rules: several RSS contexts (1.4) are offered by no device here",
    "net.stats.*": "no rules: device statistics (1.4) are offered by no device here",
    "d.net.stats.*": "no rules: device statistics (1.4) are offered by no device here",
    "blk.zoned.*": "no rules: zones are offered by no device here",
    "d.blk.zone.*": "no rules: zones are offered by no device here",
    "balloon.fph.*": "no rules: free page hints need a host that migrates",
}
