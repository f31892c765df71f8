"""What a whole server does: replaces its key, disagrees with itself, is away, comes back. On virtual time, with many clients."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from tests.simulation import faults, figures, lab, standin, virtual
from tests.simulation.cluster import SECRETS, Key
from tests.simulation.virtual import DAY, HOUR, MINUTE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation import squidex

pytestmark = pytest.mark.usefixtures("seldom")


def test_a_replaced_key_is_noticed_within_the_interval_and_costs_one_request() -> None:
    async def run() -> None:
        async with lab.running() as world:
            world.create("app", world.first)
            await world.until_works("app", world.first, 5)
            await asyncio.sleep(HOUR)
            world.first.replace_key()
            await world.until_works("app", world.first, 5 * MINUTE + 10)
            await asyncio.sleep(HOUR)
            assert _asked(world.first, 0, DAY) == 2

    virtual.run(run())


def test_after_a_restart_probes_are_spread_and_none_is_put_off() -> None:
    async def run() -> None:
        async with lab.running(lab.CALM) as world:
            server, many = world.first, 120
            for number in range(many):
                world.create(f"app-{number}", server)
            await asyncio.sleep(2 * HOUR)
            writes = len(world.process.gateway.writes)
            for _ in range(3):  # however often
                world.process.end(gently=True)
                await asyncio.sleep(20 * MINUTE)
            world.process.ends.clear()
            began = virtual.now() - HOUR
            bins = [lab.count(server, "probe", at, at + 10 * MINUTE) for at in _every(10 * MINUTE, began, HOUR)]
            assert sum(bins) in range(many - 12, many + 25)
            assert all(8 <= count <= 40 for count in bins)
            assert len(world.process.gateway.writes) == writes
            assert _asked(server, HOUR, DAY) == 0

    virtual.run(run())


def _every(step: float, begin: float, seconds: float) -> list[float]:
    return [begin + number * step for number in range(int(seconds / step))]


def test_keys_are_asked_for_once_in_an_interval_however_many_there_are(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with lab.running() as world:
            server, many = world.first, 300
            names = [f"app-{number}" for number in range(many)]
            for name in names:
                world.create(name, server)
                await asyncio.sleep(10)  # so that each expires a bit later than the one before
            await asyncio.sleep(10 * MINUTE)
            began = virtual.now()
            await asyncio.sleep(3 * HOUR)
            assert lab.count(server, "jwks", began, virtual.now()) in range(36, 42)
            logger = logging.getLogger("squidex_operator")
            logger.setLevel(logging.WARNING)
            logger.addHandler(caplog.handler)
            server.replace_key()
            replaced = virtual.now()
            await asyncio.sleep(6 * MINUTE)
            logger.removeHandler(caplog.handler)
            assert all(world.works(name, server) for name in names)
            asked = [(at, client) for at, name, client, _ in server.requests if name == "token" and at >= replaced]
            assert len(asked) == many
            assert figures.peak([at for at, _ in asked], 10.0) <= 30 + 10 * 20
            # Who expires first comes first, as far as those at the server at the same time can be told apart.
            order = [int(client.removeprefix("app-").removesuffix(":ci")) for _, client in asked]
            assert sorted(abs(number - place) for place, number in enumerate(order))[-3] <= 64
            # One line for all; by chance a probe may have been the first to notice.
            assert sum("signing keys replaced" in line for line in caplog.messages) == 1
            assert len(caplog.messages) <= 3

    virtual.run(run())


def test_a_changed_issuer_is_noticed_by_the_next_probe_and_costs_one_request() -> None:
    async def run() -> None:
        async with lab.running() as world:
            world.create("app", world.first)
            await world.until_works("app", world.first, 5)
            await asyncio.sleep(HOUR)
            world.first.change_issuer()
            await world.until_works("app", world.first, HOUR + 10)
            await asyncio.sleep(3 * HOUR)
            assert _asked(world.first, 0, DAY) == 2

    virtual.run(run())


def test_replicas_that_disagree_by_chance_cost_a_bounded_number_of_tokens_and_are_told() -> None:
    async def run() -> None:
        async with lab.running() as world:
            server = world.first
            await _disagree(world, server, server.begin_rollout)
            assert _asked(server, 2 * HOUR, DAY) <= 40
            server.end_rollout()
            await world.until_works("app", server, HOUR + 10)

    virtual.run(run())


def test_replicas_that_disagree_in_turn_cost_a_bounded_number_of_tokens_and_are_told() -> None:
    async def run() -> None:
        async with lab.running(make=standin.StandIn) as world:
            server = world.first
            assert isinstance(server, standin.StandIn)
            await _disagree(world, server, lambda: server.patch({"replicas": ["first", "second"]}))
            assert _asked(server, 2 * HOUR, DAY) <= 10
            server.patch({"replicas": ["second"]})
            await world.until_works("app", server, HOUR + 10)
            await asyncio.sleep(2 * HOUR + MINUTE)
            assert world.condition("app", "TokenAccepted") == ("True", "Accepted")

    virtual.run(run())


async def _disagree(world: lab.Lab, server: squidex.Server, begin: Callable[[], None]) -> None:
    """For a day. After the first half hour there is no moment in which the status says that all is well."""
    world.create("app", server)
    await world.until_works("app", server, 5)
    await asyncio.sleep(HOUR)
    begin()
    await asyncio.sleep(30 * MINUTE)
    for _ in range(23 * 60):
        await asyncio.sleep(MINUTE)
        said = {world.condition("app", kind)[1] for kind in ("TokenAccepted", "RefreshFailing")}
        assert said & {"KeysDisagree", "TokenRefused", "NewTokenRefused"}, f"at {virtual.now():.0f} s: {said}"
    assert _asked(server, HOUR, HOUR) <= 10


def test_replicas_that_disagree_are_not_stormed_by_many() -> None:
    async def run() -> None:
        async with lab.running() as world:
            server, many = world.first, 100
            for number in range(many):
                world.create(f"app-{number}", server)
            await asyncio.sleep(HOUR)
            server.begin_rollout()
            began = virtual.now()
            await asyncio.sleep(30 * MINUTE)
            server.end_rollout()
            assert lab.count(server, "jwks", began, virtual.now()) <= 35
            assert lab.count(server, "token", began, virtual.now()) <= 7 * many
            assert lab.count(server, "probe", began, virtual.now()) <= 14 * many
            await asyncio.sleep(30 * MINUTE)
            assert all(world.works(f"app-{number}", server) for number in range(many))

    virtual.run(run())


def test_a_key_that_is_replaced_while_the_secret_is_wrong_is_no_hot_loop() -> None:
    async def run() -> None:
        async with lab.running() as world:
            server = world.first
            world.create("app", server)
            await world.until_works("app", server, 5)
            await asyncio.sleep(HOUR)
            server.faults = [faults.oauth(401, "invalid_client", "Wrong.")]
            server.replace_key()
            began = virtual.now()
            await asyncio.sleep(DAY)
            assert world.condition("app", "Ready") == ("False", "TokenRefused")
            assert _asked(server, began, DAY) <= 6
            assert lab.count(server, "probe", began, began + DAY) <= 30
            assert lab.count(server, "jwks", began, began + DAY) <= 350

    virtual.run(run())


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.rate_limit("120"), id="one that asked to wait"),
        pytest.param(faults.hang(), id="one that hung"),
        pytest.param(faults.unreachable(), id="one that was away"),
        pytest.param(faults.status(503), id="one that was down"),
    ],
)
def test_a_server_that_comes_back_is_not_flooded(fault: faults.Fault) -> None:
    async def run() -> None:
        async with lab.running(lab.CALM) as world:
            server, many = world.first, 600
            server.faults = [fault]
            for number in range(many):
                world.create(f"app-{number}", server)
            await asyncio.sleep(10 * MINUTE)
            server.faults = []
            began = virtual.now()
            await asyncio.sleep(15 * MINUTE)
            assert all(world.works(f"app-{number}", server) for number in range(many))
            asked = [at for at, name, _, _ in server.requests if name == "token" and at >= began]
            assert figures.peak(asked, 10.0) <= 30 + 10 * 20

    virtual.run(run())


def test_a_clock_that_is_set_back_by_days_holds_up_nothing() -> None:
    async def run() -> None:
        async with lab.running() as world:
            world.process.set_clock(5 * DAY)
            await asyncio.sleep(MINUTE)
            world.create("app", world.first)
            world.create("other", world.second)
            await world.until_works("app", world.first, 5)
            await asyncio.sleep(HOUR)
            world.process.set_clock(0.0)
            await asyncio.sleep(MINUTE)
            began = virtual.now()
            world.second.change_issuer()
            await asyncio.sleep(HOUR + MINUTE)
            assert lab.count(world.first, "jwks", began, began + HOUR) >= 11
            assert world.works("other", world.second)

    virtual.run(run())


def test_a_key_that_is_replaced_after_the_clock_was_set_back_is_noticed_as_soon_as_ever() -> None:
    async def run() -> None:
        async with lab.running() as world:
            await asyncio.sleep(3 * HOUR)
            world.create("app", world.first, probe={"mode": "Off"})
            await world.until_works("app", world.first, 5)
            world.process.set_clock(-2 * HOUR)
            await asyncio.sleep(MINUTE)
            world.first.replace_key()
            await world.until_works("app", world.first, 5 * MINUTE + 10)
            assert _asked(world.first, 0, DAY) == 2

    virtual.run(run())


@pytest.mark.parametrize("ahead", [2 * HOUR, 9 * DAY, 200 * DAY], ids=["two hours", "nine days", "200 days"])
def test_a_token_of_a_clock_that_was_ahead_does_not_die_unnoticed(ahead: float) -> None:
    async def run() -> None:
        async with lab.running(lab.CALM) as world:
            world.process.set_clock(ahead)
            await asyncio.sleep(MINUTE)
            world.create("app", world.first, probe={"mode": "Off"})
            await world.until_works("app", world.first, 5)
            await asyncio.sleep(HOUR)
            world.process.set_clock(0.0)
            for _ in range(60):
                await asyncio.sleep(DAY)
                assert world.works("app", world.first), f"dead after {virtual.now() / DAY:.0f} days"
            assert _asked(world.first, 0, 61 * DAY) <= 5

    virtual.run(run())


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(faults.hang(), id="one that hangs"),
        pytest.param(faults.slow(14.0), id="one that is slow"),
        pytest.param(faults.rate_limit("3600"), id="one that asks to wait"),
        pytest.param(faults.unreachable(), id="one that is away"),
    ],
)
def test_a_server_in_trouble_holds_up_no_other(fault: faults.Fault) -> None:
    async def run() -> None:
        async with lab.running(lab.CALM) as world:
            world.first.faults = [fault]
            for number in range(200):
                world.create(f"bad-{number}", world.first)
            await asyncio.sleep(MINUTE)
            names = [f"good-{number}" for number in range(40)]
            for name in names:
                world.create(name, world.second)
            await asyncio.sleep(5)
            assert [name for name in names if not world.works(name, world.second)] == []
            # Nor does a renewal of what is there wait, hours later.
            await asyncio.sleep(HOUR)
            world.second.replace_key()
            for name in names:
                world.credentials(name, "s3cr3t ")
                world.edit(name, scope="squidex-api")
            world.create("late", world.second)
            await world.until_works("late", world.second, 5)

    virtual.run(run())


def _asked(server: squidex.Server, since: float, seconds: float) -> int:
    return lab.count(server, "token", since, since + seconds)


def test_a_repair_does_not_wait_behind_hundreds_of_new_ones() -> None:
    async def run() -> None:
        async with lab.running(lab.CALM) as world:
            world.create("old", world.first)
            await world.until_works("old", world.first, 5)
            await asyncio.sleep(HOUR)
            for number in range(600):
                world.create(f"new-{number}", world.first)
            await asyncio.sleep(2)
            world.cluster.delete(SECRETS, Key(lab.NAMESPACE, "old"))
            await world.until_works("old", world.first, 2)
            assert not all(world.works(f"new-{number}", world.first) for number in range(600))
            for number in range(600):
                await world.until_works(f"new-{number}", world.first, MINUTE)
            assert figures.peak([at for at, name, *_ in world.first.requests if name == "token"], 10.0) <= 230

    virtual.run(run())


def test_a_clock_that_is_set_back_during_a_fill_stops_nobody() -> None:
    async def run() -> None:
        async with lab.running(lab.CALM) as world:
            world.process.set_clock(HOUR)
            await asyncio.sleep(MINUTE)
            for number in range(300):
                world.create(f"new-{number}", world.first)
            await asyncio.sleep(0.5)
            world.process.set_clock(0.0)
            for number in range(300):
                await world.until_works(f"new-{number}", world.first, MINUTE)
            assert figures.peak([at for at, name, *_ in world.first.requests if name == "token"], 10.0) <= 230

    virtual.run(run())


def test_a_url_that_is_corrected_does_not_wait_behind_the_old_server() -> None:
    async def run() -> None:
        async with lab.running(lab.CALM) as world:
            world.first.faults = [faults.slow(14.0)]
            for number in range(200):
                world.create(f"bad-{number}", world.first)
            await asyncio.sleep(MINUTE)
            world.second.secrets["bad-199:ci"] = "s3cr3t"
            world.edit("bad-199", url=world.second.base_url)
            await world.until_works("bad-199", world.second, 2)

    virtual.run(run())
