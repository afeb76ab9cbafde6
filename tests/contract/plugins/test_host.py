"""acrn_dm.contract.plugins: loading, provenance in errors, checked records, guarded observers."""

import errno
import logging
import os
import types
from collections.abc import Callable, Generator
from typing import Any, Never, cast

import attrs
import pytest

from acrn_dm.base.errors import ConfigError, HostError, PluginError
from acrn_dm.base.irq import IoEventFd, Space
from acrn_dm.contract.hookspecs import hookimpl
from acrn_dm.contract.plugins import BUILTINS, PluginManager, make_plugin_manager
from acrn_dm.contract.plugins.selection import Selection
from acrn_dm.contract.types import BackendType, Bdf, DeviceContext, DeviceType, HypervisorType, Provenance
from acrn_dm.hypervisors.sim import plugin as sim
from acrn_dm.hypervisors.sim.vm import SimVm
from acrn_dm.virtio.choice import choose

BINDING = IoEventFd(fd=3, space=Space.MMIO, addr=0x8000_0000, len=2)


@attrs.frozen(kw_only=True)
class NoOptions:
    pass


def device_type(name: str, **more: Any) -> DeviceType:
    return DeviceType(name=name, summary="a test", config=NoOptions, create=lambda c, x: None, **more)


def plugin(name: str, **hooks: Any) -> types.ModuleType:
    """A plugin module whose attributes are the given hook implementations."""
    module = types.ModuleType(name)
    vars(module).update({k: hookimpl(v) for k, v in hooks.items()})
    return module


def offering(name: str, *records: Any, hook: str = "acrn_dm_device_types") -> types.ModuleType:
    return plugin(name, **{hook: lambda: records})


def manager(*plugins: object) -> PluginManager:
    return make_plugin_manager(builtins={}, entry_points=False, extra=plugins)


@attrs.frozen
class Dist:
    name: str = "acrn-dm-foo"
    version: str = "1.2"


@attrs.frozen
class Entry:
    """Stands for importlib.metadata.EntryPoint."""

    name: str
    what: object
    dist: Dist = Dist()

    def load(self) -> object:
        if isinstance(self.what, Exception):
            raise self.what
        return self.what


def test_device_type_is_found_by_name_and_alias() -> None:
    record = device_type("virtio-foo", aliases=("foo",))
    types_ = manager(offering("a", record)).device_types()
    assert types_ == {"virtio-foo": record, "foo": record}


def test_name_of_two_device_types_is_nobody_s_and_names_both_providers() -> None:
    it = manager(offering("one", device_type("foo")), offering("two", device_type("foo"), device_type("bar")))
    assert list(it.device_types()) == ["bar"]
    with pytest.raises(ConfigError, match=r"'foo' is offered by plugin one .* and by plugin two .*--plugins no:one or"):
        it.device_type("foo")


def test_alias_is_contested_like_a_name() -> None:
    it = manager(offering("one", device_type("foo")), offering("two", device_type("bar", aliases=("foo",))))
    with pytest.raises(ConfigError, match="is offered by"):
        it.device_type("foo")


def test_plugin_that_offers_a_name_twice_is_not_told_to_leave_itself_out() -> None:
    it = manager(offering("one", device_type("foo"), device_type("foo")))
    with pytest.raises(ConfigError, match="offers the device 'foo' twice; its author has to rename one"):
        it.device_type("foo")


def test_kinds_of_devices_are_asked_for_once() -> None:
    asked = []
    it = manager(plugin("counts", acrn_dm_device_types=lambda: asked.append(1) or [device_type("foo")]))
    assert it.device_types() == it.device_types()
    assert asked == [1]


def test_unknown_hook_is_refused_and_leaves_nothing_behind() -> None:
    it = manager()
    with pytest.raises(PluginError, match="no hook 'acrn_dm_device_typos'"):
        it.register(plugin("typo", acrn_dm_device_typos=lambda: ()), Provenance(plugin="typo"))
    it.register(offering("good", device_type("foo")), Provenance(plugin="good"))
    assert list(it.device_types()) == ["foo"]


def test_hook_with_an_unknown_argument_is_refused() -> None:
    with pytest.raises(PluginError, match="plugin wrong"):
        manager(plugin("wrong", acrn_dm_machine_started=lambda machine, moon: None))


def test_name_without_the_prefix_is_not_touched() -> None:
    class Trap:
        __name__ = "trap"

        @property
        def expensive(self) -> object:
            raise AssertionError("the host looked at an attribute that is none of its business")

    manager(Trap())


def test_entry_points_load_in_order_of_their_names() -> None:
    it = manager()
    it.load_entry_points(None, [Entry("zeta", offering("z")), Entry("alpha", offering("a"))])
    assert [p.plugin for p in it._provenance.values()] == ["alpha", "zeta"]


def test_entry_point_that_fails_to_import_is_left_out_with_its_distribution_named() -> None:
    it = manager()
    it.load_entry_points(
        None, [Entry("bad", ImportError("no module named spam")), Entry("ok", offering("ok", device_type("foo")))]
    )
    assert [str(p) for p in it.problems] == ["plugin bad (acrn-dm-foo 1.2): ImportError: no module named spam"]
    assert list(it.device_types()) == ["foo"]


def test_only_the_named_plugins_are_loaded() -> None:
    it = manager()
    it.load_entry_points(
        ["b"], [Entry("a", offering("a", device_type("da"))), Entry("b", offering("b", device_type("db")))]
    )
    assert list(it.device_types()) == ["db"]


def test_choice_is_remembered_for_other_processes() -> None:
    assert make_plugin_manager(entry_points=False).choice is None
    assert make_plugin_manager().choice == Selection()
    chosen = Selection(without=frozenset({"rng"}))
    assert make_plugin_manager(selection=chosen).choice == chosen


def test_asking_for_a_plugin_that_is_not_installed_names_the_installed_ones() -> None:
    with pytest.raises(ConfigError, match=r"--plugins: 'c': .*installed: a"):
        manager().load_entry_points(["c"], [Entry("a", offering("a"))])


@pytest.mark.parametrize("word", ["no:b", "no:acrn-dm-bar"])
def test_plugin_is_left_out_by_its_name_or_its_distribution_s(word: str) -> None:
    it = manager()
    chosen = Selection.from_words([word])
    bad = Entry("b", ImportError("never imported"), Dist("acrn-dm-bar"))
    it.load_entry_points(None, [Entry("a", offering("a", device_type("da"))), bad], selection=chosen)
    assert (list(it.device_types()), it.problems) == (["da"], [])
    assert [origin.plugin for origin in it.left_out] == ["b"]


def test_leaving_out_what_is_not_installed_suggests_what_is() -> None:
    with pytest.raises(ConfigError, match=r"--plugins: 'ringo': .*did you mean 'ring'\? installed: ring$"):
        manager().load_entry_points(None, [Entry("ring", offering("a"))], selection=Selection.from_words(["no:ringo"]))


def test_names_to_load_and_names_to_leave_out_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="either"):
        Selection.from_words(["a", "no:b"])


def test_built_in_plugin_can_be_left_out_for_another_of_its_names() -> None:
    name = "devices.lpc"
    arguments = {
        "builtins": {name: BUILTINS[name]},
        "entry_points": False,
        "extra": [offering("x", device_type("lpc"))],
    }
    with pytest.raises(ConfigError, match=f"--plugins no:{name} or"):
        make_plugin_manager(**arguments).device_type("lpc")
    left = make_plugin_manager(**arguments, selection=Selection.from_words([f"no:{name}"]))
    assert left.device_type("lpc") is not None


def test_taken_plugin_name_is_a_problem_that_names_the_owner() -> None:
    it = manager()
    it.load_entry_points(None, [Entry("a", offering("a")), Entry("a", offering("a2"))])
    assert "taken by plugin a (acrn-dm-foo 1.2)" in str(it.problems[0])


def test_provider_of_a_record_is_known() -> None:
    it = manager(offering("a", device_type("foo")))
    assert str(it.provider(it.device_types()["foo"])) == "plugin a (given by the caller)"


def test_backends_of_one_name_may_serve_different_kinds() -> None:
    def backend(*kinds: str) -> BackendType:
        return BackendType(name="vhost", summary="", kinds=kinds, create=lambda: None)

    it = manager(offering("a", backend("virtio-net"), backend("virtio-vsock"), hook="acrn_dm_backend_types"))
    assert len(it.backend_types()) == 2


def test_backend_that_two_offer_for_one_kind_says_so_to_who_makes_it() -> None:
    def backend() -> BackendType:
        return BackendType(name="fast", summary="", kinds=("virtio-net",), create=lambda device: None)

    it = manager(*(offering(name, backend(), hook="acrn_dm_backend_types") for name in "ab"))
    found = choose(DeviceContext(bdf=Bdf(slot=3), kind="virtio-net"), it.backend_types(), "fast")
    with pytest.raises(ConfigError, match=r"'fast for virtio-net' is offered by plugin a .* and by plugin b "):
        found.create(cast(Never, None))


def test_hypervisor_types_by_name() -> None:
    record = HypervisorType(name="h", summary="", probe=lambda: None, open=lambda o: None)
    assert manager(offering("a", record, hook="acrn_dm_hypervisor_types")).hypervisor_types() == {"h": record}


def test_failing_observer_does_not_starve_the_next(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def fails(machine: object) -> None:
        raise RuntimeError("boom")

    it = manager(
        plugin("first", acrn_dm_machine_started=lambda machine: seen.append("first")),
        plugin("bad", acrn_dm_machine_started=fails),
        plugin("last", acrn_dm_machine_started=lambda machine: seen.append("last")),
    )
    with caplog.at_level(logging.ERROR):
        it.observe("acrn_dm_machine_started", machine=object())
    assert sorted(seen) == ["first", "last"]
    assert "plugin bad" in caplog.text
    assert "acrn_dm_machine_started: RuntimeError: boom" in caplog.text


def test_eventfd_hook_stops_at_the_first_that_did_it() -> None:
    calls: list[str] = []

    def hypervisor(vm: object, binding: object, assign: bool) -> bool:
        calls.append("hypervisor")
        return True

    def tracer(vm: object, binding: object, assign: bool) -> None:
        calls.append("tracer")

    it = manager(plugin("h", acrn_dm_vhm_ioeventfd=hypervisor), plugin("t", acrn_dm_vhm_ioeventfd=tracer))
    it.ioeventfd(object(), BINDING, True)
    assert calls == ["tracer", "hypervisor"]


@pytest.mark.parametrize(("answer", "why"), [(None, "no plugin serves this hypervisor"), (False, "vetoed by a plugin")])
def test_eventfd_hook_that_nobody_did_is_a_host_error(answer: bool | None, why: str) -> None:
    it = manager(plugin("p", acrn_dm_vhm_ioeventfd=lambda vm, binding, assign: answer))
    with pytest.raises(HostError, match=why):
        it.ioeventfd(object(), BINDING, True)


@pytest.mark.parametrize("assign", [True, False])
def test_eventfd_hook_that_breaks_is_a_host_error_that_names_the_plugin(assign: bool) -> None:
    """Devices go on without the eventfd then; anything else would stop them half-way, with the descriptor open."""

    def broken(vm: object, binding: object, assign: bool) -> bool:
        raise KeyError("tracer's bug")

    m = manager(plugin("tracer", acrn_dm_vhm_ioeventfd=broken))
    with pytest.raises(HostError, match=r"plugin tracer .*KeyError.*tracer's bug"):
        m.ioeventfd(object(), BINDING, assign)


@attrs.define
class Wrapper:
    """A third party's: lets the others do it, then fails as it was told."""

    after: Callable[[bool], bool]
    __name__ = "wrapper"

    @hookimpl(wrapper=True)
    def acrn_dm_vhm_ioeventfd(self, assign: bool) -> Generator[None, bool, bool]:
        yield
        return self.after(assign)


def pipe_is_broken(assign: bool) -> bool:
    raise BrokenPipeError("nobody reads what is traced")


def plugin_is_blamed(assign: bool) -> bool:
    raise PluginError("broke its contract", provenance="plugin x")


WRAPPERS = [pipe_is_broken, plugin_is_blamed, lambda assign: False]


@pytest.mark.parametrize("after", WRAPPERS)
def test_registration_that_fails_when_it_was_done_is_undone(after: Callable[[bool], bool]) -> None:
    it, vm = manager(sim, Wrapper(after)), SimVm()
    kick = os.eventfd(0, os.EFD_NONBLOCK)
    binding = attrs.evolve(BINDING, fd=kick)
    with pytest.raises(HostError):
        it.ioeventfd(vm, binding, True)
    assert [call.assign for call in vm.calls] == [True, False]
    assert vm.kicks.bindings == []
    vm.close()
    os.close(kick)


def test_registration_that_the_hypervisor_refuses_is_not_undone() -> None:
    it, vm = manager(sim, Wrapper(lambda assign: True)), SimVm()
    vm.fail("ioeventfd", errno.ENOSPC)
    with pytest.raises(HostError, match="ENOSPC"):
        it.ioeventfd(vm, BINDING, True)
    assert [call.assign for call in vm.calls] == [True]
    vm.close()


@pytest.mark.parametrize("after", WRAPPERS)
def test_unregistration_is_done_although_a_wrapper_fails_afterwards(after: Callable[[bool], bool]) -> None:
    it, vm = manager(sim, Wrapper(lambda assign: assign or after(assign))), SimVm()
    kick = os.eventfd(0, os.EFD_NONBLOCK)
    binding = attrs.evolve(BINDING, fd=kick)
    it.ioeventfd(vm, binding, True)
    with pytest.raises(HostError):
        it.ioeventfd(vm, binding, False)
    assert [call.assign for call in vm.calls] == [True, False]
    assert vm.kicks.bindings == []
    vm.close()
    os.close(kick)


def test_add_options_reaches_plugins_registered_later() -> None:
    it = manager()
    seen: list[str] = []
    it.add_options("parser")
    it.register(plugin("late", acrn_dm_add_options=lambda parser: seen.append(str(parser))), Provenance(plugin="late"))
    assert seen == ["parser"]


@pytest.mark.parametrize("name", ["", "Virtio", "1st", "a b", "ä"])
def test_record_name_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name"):
        device_type(name)
