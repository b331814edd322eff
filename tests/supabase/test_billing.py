"""Stripe's events take effect once, in any order; Stripe is told of each item once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.supabase.database import become

ORGANIZATION = "00000000-0000-4000-8000-000000000001"
T0 = 1_795_000_000


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as opened:
        opened.execute("insert into organizations (id, slug, name) values (%s, 'acme', 'Acme')", [ORGANIZATION])
        yield opened


def apply(connection: psycopg.Connection[Any], event: dict[str, Any]) -> str:
    with connection.transaction():
        become(connection, "service_role")
        row = connection.execute("select apply_stripe_event(%s)", [Jsonb(event)]).fetchone()
    assert row is not None
    return str(row[0])


def event(number: int, kind: str, thing: dict[str, Any], after_s: int = 0) -> dict[str, Any]:
    return {"id": f"evt_{number}", "type": kind, "created": T0 + after_s, "data": {"object": thing}}


def checkout() -> dict[str, Any]:
    return event(1, "checkout.session.completed", {"client_reference_id": ORGANIZATION, "customer": "cus_1"})


def subscription(
    number: int, status: str, after_s: int, plan: str = "team", kind: str = "updated", name: str = "sub_1"
) -> dict[str, Any]:
    period = {"current_period_start": T0, "current_period_end": T0 + 2_592_000}
    thing = {
        "id": name,
        "customer": "cus_1",
        "status": status,
        "trial_end": None,
        "cancel_at": None,
        "items": {"data": [{"price": {"lookup_key": plan}, **period}]},
    }
    return event(number, f"customer.subscription.{kind}", thing, after_s)


def invoice(number: int, status: str, kind: str, after_s: int) -> dict[str, Any]:
    paid = 4900 if status == "paid" else 0
    thing = {"id": "in_1", "customer": "cus_1", "status": status, "amount_due": 4900, "amount_paid": paid}
    thing |= {"currency": "usd", "period_start": T0, "period_end": T0 + 1, "created": T0, "hosted_invoice_url": None}
    return event(number, f"invoice.{kind}", thing, after_s)


def plan(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("select plan from usage_this_month").fetchone()
    assert row is not None
    return str(row[0])


def test_an_event_takes_effect_once(connection: psycopg.Connection[Any]) -> None:
    assert apply(connection, checkout()) == "applied"
    assert apply(connection, subscription(2, "active", 1)) == "applied"
    assert plan(connection) == "Team"
    connection.execute("update subscriptions set plan_id = 'business'")
    assert apply(connection, subscription(2, "active", 1)) == "known"
    assert plan(connection) == "Business"
    assert apply(connection, event(3, "payout.paid", {})) == "ignored"
    assert connection.execute("select count(*) from stripe_events").fetchone() == (3,)


def test_an_event_that_fails_leaves_nothing_and_works_when_it_comes_again(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.NoDataFound):
        apply(connection, subscription(2, "active", 1))  # before the checkout that says whose it is
    assert connection.execute("select count(*) from stripe_events").fetchone() == (0,)
    apply(connection, checkout())
    assert apply(connection, subscription(2, "active", 1)) == "applied"
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        apply(connection, subscription(3, "active", 2, plan="pro"))  # no such plan in the price list
    assert connection.execute("select id from stripe_events order by 1").fetchall() == [("evt_1",), ("evt_2",)]


def test_the_order_in_which_events_come_does_not_matter(connection: psycopg.Connection[Any]) -> None:
    apply(connection, checkout())
    events = [
        subscription(2, "trialing", 1, kind="created"),
        subscription(3, "active", 2),
        subscription(4, "past_due", 3),
        subscription(5, "active", 4, plan="business"),
    ]
    for order in itertools.permutations(events):
        connection.execute("delete from subscriptions")
        connection.execute("delete from stripe_events where id <> 'evt_1'")
        for one in order:
            apply(connection, one)
        found = connection.execute("select plan_id, status, past_due_since from subscriptions").fetchall()
        assert found == [("business", "active", None)]


def test_a_late_payment_is_given_two_weeks(connection: psycopg.Connection[Any]) -> None:
    apply(connection, checkout())
    apply(connection, subscription(2, "active", 1))
    apply(connection, subscription(3, "past_due", 2))
    apply(connection, subscription(4, "past_due", 3))
    (since,) = connection.execute("select past_due_since from subscriptions").fetchone() or (None,)
    assert since == datetime.fromtimestamp(T0 + 2, UTC), "the first failure counts"
    connection.execute("update subscriptions set past_due_since = now() - interval '13 days'")
    assert plan(connection) == "Team"
    connection.execute("update subscriptions set past_due_since = now() - interval '15 days'")
    assert plan(connection) == "Free"
    apply(connection, subscription(5, "active", 9))
    assert plan(connection) == "Team"


def test_the_end_of_an_old_subscription_does_not_end_the_new_one(connection: psycopg.Connection[Any]) -> None:
    apply(connection, checkout())
    apply(connection, subscription(2, "active", 1, name="sub_old"))
    apply(connection, subscription(3, "active", 2, plan="business", kind="created", name="sub_new"))
    apply(connection, subscription(4, "canceled", 3, kind="deleted", name="sub_old"))
    assert plan(connection) == "Business"
    apply(connection, subscription(5, "canceled", 4, plan="business", kind="deleted", name="sub_new"))
    assert plan(connection) == "Free"


def test_a_paid_invoice_stays_paid(connection: psycopg.Connection[Any]) -> None:
    apply(connection, checkout())
    for one in (invoice(2, "paid", "paid", 3), invoice(3, "open", "finalized", 2), invoice(4, "draft", "created", 1)):
        apply(connection, one)
    assert connection.execute("select status, amount_paid_cents from invoices").fetchall() == [("paid", 4900)]


def test_stripe_is_told_of_each_item_once(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "insert into billing_customers (organization_id, stripe_customer_id) values (%s, 'cus_1')", [ORGANIZATION]
    )

    def count(items: int) -> None:
        connection.execute(
            "insert into usage_events (id, hour, organization_id, source, signal, log_position, items, bytes, requests)"
            " select gen_random_uuid(), date_trunc('hour', now(), 'UTC') - interval '2 hours', %s, %s, 'logs', 0, %s,"
            " 1, 1",
            [ORGANIZATION, ORGANIZATION, items],
        )

    def take() -> list[Any]:
        return connection.execute("select identifier, stripe_customer_id, items from take_stripe_reports()").fetchall()

    count(100)
    (first,) = take()
    assert first[1:] == ("cus_1", 100)
    assert take() == [first], "what is not known to be sent is sent again, as it was"
    count(11)  # late, for an hour that is in a report already
    both = take()
    assert [row[2] for row in both] == [100, 11]
    assert len({row[0] for row in both}) == 2
    connection.execute("select stripe_reports_sent(%s)", [[row[0] for row in both]])
    assert take() == []


def test_an_hour_that_goes_on_is_not_told_yet(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "insert into billing_customers (organization_id, stripe_customer_id) values (%s, 'cus_1')", [ORGANIZATION]
    )
    connection.execute(
        "insert into usage_events (id, hour, organization_id, source, signal, log_position, items, bytes, requests)"
        " select gen_random_uuid(), date_trunc('hour', now(), 'UTC'), %s, %s, 'logs', 0, 5, 1, 1",
        [ORGANIZATION, ORGANIZATION],
    )
    assert connection.execute("select * from take_stripe_reports()").fetchall() == []
