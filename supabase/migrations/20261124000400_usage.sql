-- Usage: append-only events, and sums that follow them within the same transaction.

create table if not exists public.usage_events (
    id uuid not null,
    hour timestamptz not null check (extract(epoch from hour)::bigint % 3600 = 0),
    organization_id uuid not null references public.organizations (id),
    source uuid not null,
    signal text not null check (signal in ('logs', 'metrics', 'traces')),
    log_position bigint not null check (log_position >= 0),
    items bigint not null check (items >= 0),
    bytes bigint not null check (bytes >= 0),
    requests bigint not null check (requests >= 0),
    recorded_at timestamptz not null default now(),
    primary key (id, hour)
) partition by range (hour);
create index if not exists usage_events_by_hour on public.usage_events (organization_id, hour);
create index if not exists usage_events_by_source on public.usage_events (source, hour);
comment on table public.usage_events is 'What was received, as sidecars report it. Rows are added once each and never changed.';
comment on column public.usage_events.id is 'UUID version 5 of source, organisation, signal, hour and log_position: a repeat has the same id and is not counted.';
comment on column public.usage_events.hour is 'Beginning of the hour in which it was received, UTC.';
comment on column public.usage_events.organization_id is 'Whose.';
comment on column public.usage_events.source is 'The installation that received it.';
comment on column public.usage_events.signal is 'logs, metrics or traces.';
comment on column public.usage_events.log_position is 'How far in the source''s log it has counted: every report about an hour goes on from the one before.';
comment on column public.usage_events.items is 'Log records, data points or spans.';
comment on column public.usage_events.bytes is 'Bytes of the requests, uncompressed.';
comment on column public.usage_events.requests is 'Requests.';
comment on column public.usage_events.recorded_at is 'When this database heard of it.';

-- Takes what fits no month's partition, so that nothing is ever refused for want of one.
create table if not exists public.usage_events_other partition of public.usage_events default;
comment on table public.usage_events_other is 'Usage of months without a partition of their own.';

create table if not exists public.usage_hourly (
    organization_id uuid not null references public.organizations (id) on delete cascade,
    hour timestamptz not null,
    signal text not null,
    items bigint not null,
    bytes bigint not null,
    requests bigint not null,
    primary key (organization_id, hour, signal)
);
create index if not exists usage_hourly_by_hour on public.usage_hourly (hour);
comment on table public.usage_hourly is 'Sums of usage_events by hour.';
comment on column public.usage_hourly.organization_id is 'Whose.';
comment on column public.usage_hourly.hour is 'Beginning of the hour, UTC.';
comment on column public.usage_hourly.signal is 'logs, metrics or traces.';
comment on column public.usage_hourly.items is 'Log records, data points or spans.';
comment on column public.usage_hourly.bytes is 'Bytes of the requests, uncompressed.';
comment on column public.usage_hourly.requests is 'Requests.';

create table if not exists public.usage_monthly (
    organization_id uuid not null references public.organizations (id) on delete cascade,
    month date not null check (extract(day from month) = 1),
    items bigint not null,
    bytes bigint not null,
    requests bigint not null,
    primary key (organization_id, month)
);
comment on table public.usage_monthly is 'Sums of usage_events by calendar month, UTC: what is billed.';
comment on column public.usage_monthly.organization_id is 'Whose.';
comment on column public.usage_monthly.month is 'First day of the month.';
comment on column public.usage_monthly.items is 'Log records, data points and spans.';
comment on column public.usage_monthly.bytes is 'Bytes of the requests, uncompressed.';
comment on column public.usage_monthly.requests is 'Requests.';

-- One statement: each sum is raised by what was really inserted, under the lock of its row. Rows are taken in one
-- order, so that two batches cannot wait for each other.
create or replace function driftlock.add_usage() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    with hourly as (
        insert into public.usage_hourly as h (organization_id, hour, signal, items, bytes, requests)
        select organization_id, hour, signal, sum(items), sum(bytes), sum(requests)
        from new_rows group by 1, 2, 3 order by 1, 2, 3
        on conflict (organization_id, hour, signal) do update set
            items = h.items + excluded.items, bytes = h.bytes + excluded.bytes, requests = h.requests + excluded.requests
    ), monthly as (
        insert into public.usage_monthly as m (organization_id, month, items, bytes, requests)
        select organization_id, date_trunc('month', hour at time zone 'UTC')::date, sum(items), sum(bytes), sum(requests)
        from new_rows group by 1, 2 order by 1, 2
        on conflict (organization_id, month) do update set
            items = m.items + excluded.items, bytes = m.bytes + excluded.bytes, requests = m.requests + excluded.requests
        returning m.organization_id, m.month, m.items
    )
    insert into public.quota_alerts (organization_id, month, percent)
    select monthly.organization_id, monthly.month, threshold.percent
    from monthly
    left join public.subscriptions s on s.organization_id = monthly.organization_id
    join public.plans p on p.id = coalesce(driftlock.plan_of(s), 'free')
    cross join (values (70), (90), (100)) threshold (percent)
    where monthly.items::numeric * 100 >= p.included_items::numeric * threshold.percent
    order by 1, 2, 3
    on conflict do nothing;
    return null;
end
$$;
comment on function driftlock.add_usage is 'Trigger: raises the sums by the events that were added, and alerts at 70, 90 and 100 % of the included volume.';
revoke all on function driftlock.add_usage from public, anon, authenticated;
create or replace trigger add_usage after insert on public.usage_events
    referencing new table as new_rows for each statement execute function driftlock.add_usage();
create or replace trigger usage_events_is_append_only before update or delete or truncate on public.usage_events
    for each statement execute function driftlock.refuse_change();

create or replace view public.usage_this_month with (security_invoker = true) as
    select o.id as organization_id, o.name as organization, p.name as plan, o.quota_action,
           coalesce(u.items, 0) as items, coalesce(u.bytes, 0) as bytes, p.included_items,
           round(coalesce(u.items, 0) * 100.0 / nullif(p.included_items, 0), 1) as percent_used,
           greatest(coalesce(u.items, 0) - p.included_items, 0) as items_beyond,
           p.price_cents + ceil(greatest(coalesce(u.items, 0) - p.included_items, 0)
               * coalesce(p.overage_cents_per_million, 0) / 1000000.0) as estimated_cents,
           o.quota_action = 'block' and coalesce(u.items, 0) >= p.included_items as is_blocked
    from public.organizations o
    left join public.subscriptions s on s.organization_id = o.id
    join public.plans p on p.id = coalesce(driftlock.plan_of(s), 'free')
    left join public.usage_monthly u on u.organization_id = o.id
        and u.month = date_trunc('month', now() at time zone 'UTC')::date;
comment on view public.usage_this_month is 'What each organisation has used of its plan this month, and what that will cost.';

create table if not exists public.stripe_reports (
    identifier text primary key,
    organization_id uuid not null references public.organizations (id),
    hour timestamptz not null,
    items bigint not null check (items > 0),
    made_at timestamptz not null default now(),
    sent_at timestamptz
);
create index if not exists stripe_reports_by_hour on public.stripe_reports (organization_id, hour);
create index if not exists stripe_reports_unsent on public.stripe_reports (hour) where sent_at is null;
comment on table public.stripe_reports is 'Usage as it is told to Stripe: meter events with identifiers, so that a repeat counts once there.';
comment on column public.stripe_reports.identifier is 'Organisation, hour, and how many items of the hour were in reports before.';
comment on column public.stripe_reports.organization_id is 'Whose.';
comment on column public.stripe_reports.hour is 'Beginning of the hour.';
comment on column public.stripe_reports.items is 'Items that it tells of.';
comment on column public.stripe_reports.made_at is 'When it was made.';
comment on column public.stripe_reports.sent_at is 'When Stripe had it; empty until then.';

-- Reports are kept before they are sent: whoever crashes in between sends the same again, under the same identifier.
create or replace function public.take_stripe_reports(until_hour timestamptz default date_trunc('hour', now(), 'UTC'))
returns table (identifier text, stripe_customer_id text, hour timestamptz, items bigint)
language plpgsql security definer set search_path = '' as $$
#variable_conflict use_column
begin
    perform pg_advisory_xact_lock(1146244171);
    insert into public.stripe_reports (identifier, organization_id, hour, items)
    select format('%s:%s:%s', used.organization_id, extract(epoch from used.hour)::bigint, coalesce(told.items, 0)),
           used.organization_id, used.hour, used.items - coalesce(told.items, 0)
    from (
        select h.organization_id, h.hour, sum(h.items)::bigint as items from public.usage_hourly h
        join public.billing_customers c using (organization_id)
        -- Stripe takes no meter event older than 35 days.
        where h.hour < until_hour and h.hour > now() - interval '34 days'
        group by 1, 2
    ) used
    left join (
        select r.organization_id, r.hour, sum(r.items)::bigint as items from public.stripe_reports r group by 1, 2
    ) told using (organization_id, hour)
    where used.items > coalesce(told.items, 0)
    on conflict do nothing;
    return query select r.identifier, c.stripe_customer_id, r.hour, r.items
        from public.stripe_reports r join public.billing_customers c using (organization_id)
        where r.sent_at is null order by r.hour, r.identifier limit 1000;
end
$$;
comment on function public.take_stripe_reports is 'Makes reports of the usage of whole hours that is in none yet, and returns those that are not sent. For the service alone.';
revoke all on function public.take_stripe_reports from public, anon, authenticated;
grant execute on function public.take_stripe_reports to service_role;

create or replace function public.stripe_reports_sent(identifiers text[]) returns void
language sql security definer set search_path = '' as $$
    update public.stripe_reports set sent_at = now() where identifier = any (identifiers) and sent_at is null
$$;
comment on function public.stripe_reports_sent is 'Says that Stripe has these reports. For the service alone.';
revoke all on function public.stripe_reports_sent from public, anon, authenticated;
grant execute on function public.stripe_reports_sent to service_role;

create or replace function driftlock.keep_house(
    today date default (now() at time zone 'UTC')::date,
    anomalies_days integer default 90,
    usage_months integer default 36
) returns void language plpgsql security definer set search_path = '' as $$
declare
    first_day date;
    partition record;
begin
    -- Partitions of this month and the two after it, unless the default one holds rows of that month already.
    for first_day in
        select date_trunc('month', today)::date + make_interval(months => n) from generate_series(0, 2) n
    loop
        if to_regclass('public.usage_events_' || to_char(first_day, 'YYYY_MM')) is null and not exists (
            select 1 from public.usage_events_other where hour >= first_day::timestamp at time zone 'UTC'
                and hour < (first_day + interval '1 month') at time zone 'UTC'
        ) then
            execute format(
                'create table public.%I partition of public.usage_events for values from (%L) to (%L)',
                'usage_events_' || to_char(first_day, 'YYYY_MM'),
                first_day::timestamp at time zone 'UTC', (first_day + interval '1 month') at time zone 'UTC');
            execute format('alter table public.%I enable row level security',
                'usage_events_' || to_char(first_day, 'YYYY_MM'));
            execute format('revoke all on public.%I from anon, authenticated, service_role',
                'usage_events_' || to_char(first_day, 'YYYY_MM'));
            execute format('comment on table public.%I is %L', 'usage_events_' || to_char(first_day, 'YYYY_MM'),
                'Usage of ' || to_char(first_day, 'YYYY-MM') || '.');
        end if;
    end loop;
    -- Events go with their month; the sums of usage_hourly and usage_monthly stay.
    for partition in
        select c.relname from pg_catalog.pg_inherits i join pg_catalog.pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'public.usage_events'::regclass and c.relname ~ '^usage_events_\d{4}_\d{2}$'
            and to_date(right(c.relname, 7), 'YYYY_MM')
                < date_trunc('month', today)::date - make_interval(months => usage_months)
    loop
        execute format('drop table public.%I', partition.relname);
    end loop;
    -- By when they came, not by when they happened: what is uploaded late stays as long.
    delete from public.anomalies where id in (
        select id from public.anomalies where received_at < today - anomalies_days order by received_at limit 100000
    );
end
$$;
comment on function driftlock.keep_house is 'Makes the partitions of coming months, and lets go of what is too old. Call it once a day; twice does no harm.';
revoke all on function driftlock.keep_house from public, anon, authenticated;
grant execute on function driftlock.keep_house to service_role;

-- Sidecars call this once a day, for databases without pg_cron.
create or replace function public.keep_house() returns void language sql security definer set search_path = '' as $$
    select driftlock.keep_house()
$$;
comment on function public.keep_house is 'Daily housekeeping, for the service alone.';
revoke all on function public.keep_house from public, anon, authenticated;
grant execute on function public.keep_house to service_role;

alter table public.usage_events enable row level security;
alter table public.usage_events_other enable row level security;
alter table public.usage_hourly enable row level security;
alter table public.usage_monthly enable row level security;
alter table public.stripe_reports enable row level security;

revoke all on public.stripe_reports, public.usage_events, public.usage_events_other, public.usage_hourly, public.usage_monthly,
    public.usage_this_month from anon, authenticated, service_role;
grant select, insert on public.usage_events to service_role;
grant select on public.usage_hourly, public.usage_monthly, public.usage_this_month to authenticated, service_role;
grant select on public.usage_events, public.stripe_reports to authenticated;
grant select on public.stripe_reports to service_role;

drop policy if exists "admins read usage events" on public.usage_events;
create policy "admins read usage events" on public.usage_events for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations(array['owner', 'admin']))));
drop policy if exists "admins read what Stripe is told" on public.stripe_reports;
create policy "admins read what Stripe is told" on public.stripe_reports for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations(array['owner', 'admin']))));
drop policy if exists "members read hourly usage" on public.usage_hourly;
create policy "members read hourly usage" on public.usage_hourly for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations())));
drop policy if exists "members read monthly usage" on public.usage_monthly;
create policy "members read monthly usage" on public.usage_monthly for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations())));

select driftlock.keep_house();

do $$
begin
    if exists (select 1 from pg_catalog.pg_available_extensions where name = 'pg_cron')
       and current_setting('shared_preload_libraries', true) like '%pg_cron%' then
        create extension if not exists pg_cron;
        perform cron.schedule('driftlock-keep-house', '17 3 * * *', 'select driftlock.keep_house()');
    else
        raise notice 'no pg_cron: sidecars call public.keep_house() once a day';
    end if;
end
$$;
