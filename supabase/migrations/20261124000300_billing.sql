-- Plans, subscriptions and the mirror of what Stripe says. Members read; the service alone writes.

create table if not exists public.plans (
    id text primary key check (id ~ '^[a-z][a-z0-9_]*$'),
    name text not null,
    price_cents integer not null check (price_cents >= 0),
    included_items bigint not null check (included_items >= 0),
    overage_cents_per_million integer check (overage_cents_per_million >= 0),
    trial_days integer not null default 0 check (trial_days >= 0),
    is_offered boolean not null default true
);
comment on table public.plans is 'The price list, and the only one. A month is a calendar month, UTC.';
comment on column public.plans.id is 'As subscriptions name it.';
comment on column public.plans.name is 'For people.';
comment on column public.plans.price_cents is 'US cents a month.';
comment on column public.plans.included_items is 'Log records, data points and spans a month that the price includes.';
comment on column public.plans.overage_cents_per_million is 'US cents for each further million, or part of it in proportion; empty: nothing further is billed.';
comment on column public.plans.trial_days is 'Days before the first bill.';
comment on column public.plans.is_offered is 'Whether it can be chosen anew.';

insert into public.plans (id, name, price_cents, included_items, overage_cents_per_million, trial_days) values
    ('free', 'Free', 0, 10000000, null, 0),
    ('team', 'Team', 4900, 250000000, 40, 14),
    ('business', 'Business', 24900, 2000000000, 20, 14)
on conflict (id) do nothing;

create table if not exists public.subscriptions (
    organization_id uuid primary key references public.organizations (id) on delete cascade,
    plan_id text not null references public.plans (id),
    status text not null check (status in (
        'trialing', 'active', 'past_due', 'unpaid', 'paused', 'incomplete', 'incomplete_expired', 'canceled')),
    current_period_start timestamptz not null,
    current_period_end timestamptz not null,
    trial_end timestamptz,
    cancel_at timestamptz,
    past_due_since timestamptz,
    stripe_subscription_id text unique,
    updated_at timestamptz not null default now(),
    check (current_period_start < current_period_end)
);
create index if not exists subscriptions_by_plan on public.subscriptions (plan_id);
comment on table public.subscriptions is 'Which plan an organisation has; without a row it has the free one.';
comment on column public.subscriptions.organization_id is 'The organisation.';
comment on column public.subscriptions.plan_id is 'The plan.';
comment on column public.subscriptions.status is 'As Stripe calls it.';
comment on column public.subscriptions.current_period_start is 'Beginning of what the last bill paid for.';
comment on column public.subscriptions.current_period_end is 'End of it.';
comment on column public.subscriptions.trial_end is 'When the trial ends or ended; empty without one.';
comment on column public.subscriptions.cancel_at is 'When it will end; empty if it goes on.';
comment on column public.subscriptions.past_due_since is 'Since when a payment has failed; empty if none has.';
comment on column public.subscriptions.stripe_subscription_id is 'Stripe''s id of it; empty for plans without a price.';
comment on column public.subscriptions.updated_at is 'When Stripe last said so.';

create or replace function driftlock.plan_of(s public.subscriptions) returns text language sql stable set search_path = '' as $$
    select case
        when s.status in ('trialing', 'active') then s.plan_id
        -- A payment that failed is given two weeks.
        when s.status = 'past_due' and coalesce(s.past_due_since, now()) > now() - interval '14 days' then s.plan_id
        else 'free' end
$$;
comment on function driftlock.plan_of is 'The plan that a subscription gives now: its own while it is paid for, or a payment is late by less than 14 days.';
revoke all on function driftlock.plan_of from public, anon;
grant execute on function driftlock.plan_of to authenticated, service_role;

create table if not exists public.billing_customers (
    organization_id uuid primary key references public.organizations (id) on delete cascade,
    stripe_customer_id text not null unique,
    created_at timestamptz not null default now()
);
comment on table public.billing_customers is 'Whom Stripe bills.';
comment on column public.billing_customers.organization_id is 'The organisation.';
comment on column public.billing_customers.stripe_customer_id is 'Stripe''s id of it.';
comment on column public.billing_customers.created_at is 'Since when.';

create table if not exists public.invoices (
    id text primary key,
    organization_id uuid not null references public.organizations (id) on delete cascade,
    status text not null check (status in ('draft', 'open', 'paid', 'uncollectible', 'void')),
    amount_due_cents bigint not null,
    amount_paid_cents bigint not null,
    currency text not null check (currency ~ '^[a-z]{3}$'),
    period_start timestamptz not null,
    period_end timestamptz not null,
    page_url text,
    created_at timestamptz not null
);
create index if not exists invoices_by_time on public.invoices (organization_id, created_at desc);
comment on table public.invoices is 'Stripe''s invoices, as its webhooks told.';
comment on column public.invoices.id is 'Stripe''s id of it.';
comment on column public.invoices.organization_id is 'Whose it is.';
comment on column public.invoices.status is 'As Stripe calls it.';
comment on column public.invoices.amount_due_cents is 'What is to be paid, in the smallest unit of the currency.';
comment on column public.invoices.amount_paid_cents is 'What has been paid.';
comment on column public.invoices.currency is 'ISO 4217, lower case.';
comment on column public.invoices.period_start is 'From.';
comment on column public.invoices.period_end is 'To.';
comment on column public.invoices.page_url is 'Where Stripe shows it.';
comment on column public.invoices.created_at is 'When Stripe made it.';

create table if not exists public.stripe_events (
    id text primary key,
    type text not null,
    payload jsonb not null,
    received_at timestamptz not null default now()
);
create index if not exists stripe_events_by_age on public.stripe_events (received_at);
comment on table public.stripe_events is 'Stripe''s webhooks that have taken effect; a row is written in the transaction of its effect.';
comment on column public.stripe_events.id is 'Stripe''s id of the event.';
comment on column public.stripe_events.type is 'As invoice.paid.';
comment on column public.stripe_events.payload is 'The event as it came.';
comment on column public.stripe_events.received_at is 'When.';

create table if not exists public.quota_alerts (
    organization_id uuid not null references public.organizations (id) on delete cascade,
    month date not null check (extract(day from month) = 1),
    percent integer not null check (percent in (70, 90, 100)),
    raised_at timestamptz not null default now(),
    primary key (organization_id, month, percent)
);
comment on table public.quota_alerts is 'That so much of the included volume is used up; once each a month.';
comment on column public.quota_alerts.organization_id is 'Whose volume.';
comment on column public.quota_alerts.month is 'First day of the month.';
comment on column public.quota_alerts.percent is '70, 90 or 100.';
comment on column public.quota_alerts.raised_at is 'When it was reached.';

alter table public.plans enable row level security;
alter table public.subscriptions enable row level security;
alter table public.billing_customers enable row level security;
alter table public.invoices enable row level security;
alter table public.stripe_events enable row level security;
alter table public.quota_alerts enable row level security;

revoke all on public.plans, public.subscriptions, public.billing_customers, public.invoices, public.stripe_events,
    public.quota_alerts from anon, authenticated, service_role;
grant select on public.plans to anon, authenticated, service_role;
grant select on public.subscriptions, public.billing_customers, public.invoices, public.quota_alerts to authenticated;
grant select, insert, update, delete on public.subscriptions, public.billing_customers, public.invoices to service_role;
grant select, insert on public.stripe_events to service_role;
grant select on public.quota_alerts to service_role;

drop policy if exists "everybody reads the price list" on public.plans;
create policy "everybody reads the price list" on public.plans for select to anon, authenticated using (true);
drop policy if exists "members read their subscription" on public.subscriptions;
create policy "members read their subscription" on public.subscriptions for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations())));
drop policy if exists "admins read whom Stripe bills" on public.billing_customers;
create policy "admins read whom Stripe bills" on public.billing_customers for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations(array['owner', 'admin']))));
drop policy if exists "admins read invoices" on public.invoices;
create policy "admins read invoices" on public.invoices for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations(array['owner', 'admin']))));
drop policy if exists "nobody reads webhooks" on public.stripe_events;
create policy "nobody reads webhooks" on public.stripe_events for select to authenticated using (false);
drop policy if exists "members read alerts" on public.quota_alerts;
create policy "members read alerts" on public.quota_alerts for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations())));

-- Stripe's events: the effect of one and the row that says it had it are one transaction, so that an event that is
-- delivered again changes nothing, and one that failed is tried again as a whole. Events may come in any order: of two
-- about the same thing the one that Stripe made later counts.
create or replace function public.apply_stripe_event(event jsonb) returns text
language plpgsql security definer set search_path = '' as $$
declare
    object jsonb := event #> '{data,object}';
    made timestamptz := to_timestamp((event ->> 'created')::bigint);
    kind text := event ->> 'type';
    organization uuid;
begin
    insert into public.stripe_events (id, type, payload) values (event ->> 'id', kind, event) on conflict do nothing;
    if not found then
        return 'known';
    end if;
    if kind = 'checkout.session.completed' then
        insert into public.billing_customers (organization_id, stripe_customer_id)
        values ((object ->> 'client_reference_id')::uuid, object ->> 'customer')
        on conflict (organization_id) do update set stripe_customer_id = excluded.stripe_customer_id;
        return 'applied';
    end if;
    if kind !~ '^(customer\.subscription\.(created|updated|deleted|paused|resumed)|invoice\.(created|finalized|paid|payment_failed|voided|marked_uncollectible))$' then
        return 'ignored';
    end if;
    organization := coalesce(
        (object #>> '{metadata,organization_id}')::uuid,
        (select c.organization_id from public.billing_customers c where c.stripe_customer_id = object ->> 'customer'));
    if organization is null then
        -- The checkout that says whose it is has not come yet; Stripe tries again.
        raise exception 'no organisation has the customer %', object ->> 'customer' using errcode = 'no_data_found';
    end if;
    if kind like 'customer.subscription.%' then
        insert into public.subscriptions as s (
            organization_id, plan_id, status, current_period_start, current_period_end, trial_end, cancel_at,
            past_due_since, stripe_subscription_id, updated_at)
        values (
            organization, object #>> '{items,data,0,price,lookup_key}', object ->> 'status',
            -- Since API version 2025-03-31 the period is the item's.
            to_timestamp(coalesce(object #>> '{items,data,0,current_period_start}', object ->> 'current_period_start')::bigint),
            to_timestamp(coalesce(object #>> '{items,data,0,current_period_end}', object ->> 'current_period_end')::bigint),
            to_timestamp((object ->> 'trial_end')::bigint), to_timestamp((object ->> 'cancel_at')::bigint),
            case when object ->> 'status' in ('past_due', 'unpaid') then made end, object ->> 'id', made)
        on conflict (organization_id) do update set
            plan_id = excluded.plan_id, status = excluded.status, current_period_start = excluded.current_period_start,
            current_period_end = excluded.current_period_end, trial_end = excluded.trial_end,
            cancel_at = excluded.cancel_at, stripe_subscription_id = excluded.stripe_subscription_id,
            past_due_since = case when excluded.past_due_since is not null
                then coalesce(s.past_due_since, excluded.past_due_since) end,
            updated_at = excluded.updated_at
        -- What was overtaken changes nothing, nor does the end of a subscription that another has followed.
        where s.updated_at <= excluded.updated_at
            and not (excluded.status in ('canceled', 'incomplete_expired')
                     and s.stripe_subscription_id is distinct from excluded.stripe_subscription_id);
    else
        insert into public.invoices as i (
            id, organization_id, status, amount_due_cents, amount_paid_cents, currency, period_start, period_end, page_url,
            created_at)
        values (
            object ->> 'id', organization, object ->> 'status', (object ->> 'amount_due')::bigint,
            (object ->> 'amount_paid')::bigint, object ->> 'currency', to_timestamp((object ->> 'period_start')::bigint),
            to_timestamp((object ->> 'period_end')::bigint), object ->> 'hosted_invoice_url',
            to_timestamp((object ->> 'created')::bigint))
        on conflict (id) do update set
            status = excluded.status, amount_due_cents = excluded.amount_due_cents,
            amount_paid_cents = excluded.amount_paid_cents, page_url = excluded.page_url
        -- An invoice that is paid or given up does not become open again.
        where i.status in ('draft', 'open') and not (i.status = 'open' and excluded.status = 'draft');
    end if;
    return 'applied';
end
$$;
comment on function public.apply_stripe_event is 'Lets a verified event of Stripe take effect, once; returns applied, known or ignored. For the service alone.';
revoke all on function public.apply_stripe_event from public, anon, authenticated;
grant execute on function public.apply_stripe_event to service_role;
