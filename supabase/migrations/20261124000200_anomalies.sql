-- Anomalies as sidecars report them, and what people do about them.

create table if not exists public.streams (
    organization_id uuid not null references public.organizations (id) on delete cascade,
    signal text not null check (signal in ('logs', 'metrics', 'traces', 'gen_ai')),
    service text not null,
    name text not null default '',
    first_anomaly_at timestamptz not null,
    last_anomaly_at timestamptz not null,
    primary key (organization_id, signal, service, name)
);
comment on table public.streams is 'Streams of telemetry in which something was found: records that are compared with one another.';
comment on column public.streams.organization_id is 'Whose stream it is.';
comment on column public.streams.signal is 'logs, metrics, traces or gen_ai.';
comment on column public.streams.service is 'The service that it comes from.';
comment on column public.streams.name is 'The metric, or the model of a language-model operation; empty for logs and traces.';
comment on column public.streams.first_anomaly_at is 'When something was found in it first.';
comment on column public.streams.last_anomaly_at is 'When something was found in it last.';

create table if not exists public.anomalies (
    id uuid primary key,
    organization_id uuid not null references public.organizations (id) on delete cascade,
    detected_at timestamptz not null,
    service text not null,
    signal text not null check (signal in ('logs', 'metrics', 'traces', 'gen_ai')),
    stream text not null default '',
    severity text not null check (severity in ('low', 'medium', 'high', 'critical')),
    level text not null default 'notice' check (level in ('notice', 'page', 'fleet')),
    state text not null check (state in ('open', 'ongoing', 'resolved')),
    status text not null default 'new' check (status in ('new', 'acknowledged', 'investigating', 'dismissed')),
    status_changed_at timestamptz,
    explanation text not null,
    score double precision not null check (score between 0 and 1),
    p_value double precision not null check (p_value > 0 and p_value <= 1),
    bits double precision not null,
    ncd double precision not null,
    compression_ratio double precision not null,
    baseline_compression_ratio double precision not null,
    entropy_bits double precision not null,
    baseline_entropy_bits double precision not null,
    record_count bigint not null check (record_count >= 0),
    window_count bigint not null default 1 check (window_count >= 1),
    baseline_windows bigint not null,
    baseline_records bigint not null,
    window_start_at timestamptz not null,
    window_end_at timestamptz not null,
    last_at timestamptz not null,
    resolved_at timestamptz,
    resolution text not null default '' check (resolution in ('', 'recovered', 'adopted')),
    template text not null default '',
    trace_id text not null default '' check (trace_id ~ '^([0-9a-f]{32})?$'),
    span_id text not null default '' check (span_id ~ '^([0-9a-f]{16})?$'),
    related_trace_ids text[] not null default '{}',
    incident_id text not null default '',
    is_suppressed boolean not null default false,
    detector text not null default '',
    compressor text not null default '',
    received_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    check ((state = 'resolved') = (resolved_at is not null))
);
comment on table public.anomalies is 'One row an anomaly, as the sidecar found it. anomaly_overview reads better.';
comment on column public.anomalies.id is 'Computed from stream, window and detector: the same anomaly has the same id however often it is sent.';
comment on column public.anomalies.organization_id is 'Whose it is.';
comment on column public.anomalies.detected_at is 'End of the window that raised it, by the telemetry''s own clock.';
comment on column public.anomalies.service is 'The service.';
comment on column public.anomalies.signal is 'logs, metrics, traces or gen_ai.';
comment on column public.anomalies.stream is 'The metric or the model within the service; empty for logs and traces.';
comment on column public.anomalies.severity is 'low, medium, high or critical.';
comment on column public.anomalies.level is 'How far it is to be heard: notice, page or fleet.';
comment on column public.anomalies.state is 'What the data do: open, ongoing, resolved. It only moves forward.';
comment on column public.anomalies.status is 'What people do about it: new, acknowledged, investigating, dismissed.';
comment on column public.anomalies.status_changed_at is 'When they last said so; empty while new.';
comment on column public.anomalies.explanation is 'One sentence that says what changed.';
comment on column public.anomalies.score is 'How odd, 0 to 1; 0.5 is the bar of an immediate alarm.';
comment on column public.anomalies.p_value is 'How rare: conformal p-value of the window.';
comment on column public.anomalies.bits is 'Calibrated surprise, bits.';
comment on column public.anomalies.ncd is 'Normalised compression distance of window and baseline.';
comment on column public.anomalies.compression_ratio is 'Raw over compressed bytes of the window.';
comment on column public.anomalies.baseline_compression_ratio is 'The same of the baseline.';
comment on column public.anomalies.entropy_bits is 'Entropy of the window, bits a record.';
comment on column public.anomalies.baseline_entropy_bits is 'The same of the baseline.';
comment on column public.anomalies.record_count is 'Records in the window.';
comment on column public.anomalies.window_count is 'Windows that belong to it so far.';
comment on column public.anomalies.baseline_windows is 'Windows in the baseline.';
comment on column public.anomalies.baseline_records is 'Records in the baseline.';
comment on column public.anomalies.window_start_at is 'First record of the window.';
comment on column public.anomalies.window_end_at is 'Last record of the window.';
comment on column public.anomalies.last_at is 'End of the last window that belongs to it.';
comment on column public.anomalies.resolved_at is 'When it ended; empty while it goes on.';
comment on column public.anomalies.resolution is 'How it ended: recovered, or adopted as the new normal.';
comment on column public.anomalies.template is 'Log template with the strongest evidence.';
comment on column public.anomalies.trace_id is 'Trace of the strongest record, hexadecimal; empty if it has none.';
comment on column public.anomalies.span_id is 'Its span.';
comment on column public.anomalies.related_trace_ids is 'Traces of further records.';
comment on column public.anomalies.incident_id is 'The incident it belongs to; empty if none.';
comment on column public.anomalies.is_suppressed is 'Whether it fell under a suppression or a maintenance window.';
comment on column public.anomalies.detector is 'Fingerprint of the detector: compressor, format and settings.';
comment on column public.anomalies.compressor is 'Name and version of the compressor.';
comment on column public.anomalies.received_at is 'When this database heard of it first.';
comment on column public.anomalies.updated_at is 'When its row last changed.';

create index if not exists anomalies_by_time on public.anomalies (organization_id, detected_at desc, id desc);
create index if not exists anomalies_by_service on public.anomalies (organization_id, service, detected_at desc);
create index if not exists anomalies_by_status on public.anomalies (organization_id, status, detected_at desc);
create index if not exists anomalies_by_severity on public.anomalies (organization_id, severity, detected_at desc);
create index if not exists anomalies_going_on on public.anomalies (organization_id, detected_at desc) where state <> 'resolved';
create index if not exists anomalies_by_incident on public.anomalies (organization_id, incident_id) where incident_id <> '';
create index if not exists anomalies_by_age on public.anomalies (received_at);

create table if not exists public.evidence (
    anomaly_id uuid not null references public.anomalies (id) on delete cascade,
    rank integer not null check (rank >= 1),
    organization_id uuid not null references public.organizations (id) on delete cascade,
    field text not null,
    kind text not null,
    bits double precision not null,
    sentence text not null,
    observed text not null default '',
    expected text not null default '',
    primary key (anomaly_id, rank)
);
create index if not exists evidence_by_organization on public.evidence (organization_id, anomaly_id);
comment on table public.evidence is 'What the fields of an anomalous window say, strongest first.';
comment on column public.evidence.anomaly_id is 'The anomaly.';
comment on column public.evidence.rank is '1 is the strongest.';
comment on column public.evidence.organization_id is 'Whose it is.';
comment on column public.evidence.field is 'The field, as template or attributes.http.route.';
comment on column public.evidence.kind is 'pattern (which), volume (how many), value (how large) or sequence (in what order).';
comment on column public.evidence.bits is 'Surprise, bits.';
comment on column public.evidence.sentence is 'One sentence for people.';
comment on column public.evidence.observed is 'What the window held, short.';
comment on column public.evidence.expected is 'What the baseline predicts, short.';

create table if not exists public.anomaly_status_history (
    id uuid primary key default gen_random_uuid(),
    seq bigint generated always as identity unique,
    anomaly_id uuid not null references public.anomalies (id) on delete cascade,
    organization_id uuid not null references public.organizations (id) on delete cascade,
    status text not null check (status in ('new', 'acknowledged', 'investigating', 'dismissed')),
    note text not null default '' check (length(note) <= 10000),
    actor text not null,
    origin text not null check (origin in ('dashboard', 'sidecar')),
    changed_at timestamptz not null default now()
);
create index if not exists anomaly_status_history_by_anomaly on public.anomaly_status_history (anomaly_id, changed_at desc, id desc);
create index if not exists anomaly_status_history_by_organization on public.anomaly_status_history (organization_id, seq);
comment on table public.anomaly_status_history is 'Every change of an anomaly''s status. Rows are added and never changed; the one that is latest by changed_at wins, wherever it was made.';
comment on column public.anomaly_status_history.id is 'From a sidecar: computed from its installation and the number of its own entry, so that a repeat is known.';
comment on column public.anomaly_status_history.seq is 'Counts changes; sidecars read on from the last one they know.';
comment on column public.anomaly_status_history.anomaly_id is 'The anomaly.';
comment on column public.anomaly_status_history.organization_id is 'Whose it is.';
comment on column public.anomaly_status_history.status is 'The status from then on.';
comment on column public.anomaly_status_history.note is 'What they had to say.';
comment on column public.anomaly_status_history.actor is 'Who: user:<id>, key:<id> or local.';
comment on column public.anomaly_status_history.origin is 'Where: dashboard or sidecar.';
comment on column public.anomaly_status_history.changed_at is 'When.';

create table if not exists public.anomaly_feedback (
    id uuid primary key default gen_random_uuid(),
    seq bigint generated always as identity unique,
    anomaly_id uuid not null references public.anomalies (id) on delete cascade,
    organization_id uuid not null references public.organizations (id) on delete cascade,
    verdict text not null check (verdict in ('false_alarm', 'confirmed', 'withdrawn')),
    note text not null default '' check (length(note) <= 10000),
    actor text not null,
    origin text not null check (origin in ('dashboard', 'sidecar')),
    given_at timestamptz not null default now()
);
create index if not exists anomaly_feedback_by_anomaly on public.anomaly_feedback (anomaly_id, given_at desc);
create index if not exists anomaly_feedback_by_organization on public.anomaly_feedback (organization_id, seq);
comment on table public.anomaly_feedback is 'Whether an anomaly was worth telling. Rows are added and never changed; the latest counts.';
comment on column public.anomaly_feedback.id is 'Id of the verdict.';
comment on column public.anomaly_feedback.seq is 'Counts verdicts; sidecars read on from the last one they know.';
comment on column public.anomaly_feedback.anomaly_id is 'The anomaly.';
comment on column public.anomaly_feedback.organization_id is 'Whose it is.';
comment on column public.anomaly_feedback.verdict is 'false_alarm, confirmed, or withdrawn.';
comment on column public.anomaly_feedback.note is 'Why.';
comment on column public.anomaly_feedback.actor is 'Who: user:<id>, key:<id> or local.';
comment on column public.anomaly_feedback.origin is 'Where: dashboard or sidecar.';
comment on column public.anomaly_feedback.given_at is 'When.';

create or replace view public.anomaly_overview with (security_invoker = true) as
    select a.detected_at as "when", a.service, a.signal, a.severity, a.explanation, a.status, a.state, a.level,
           o.name as organization, a.id, a.organization_id
    from public.anomalies a join public.organizations o on o.id = a.organization_id;
comment on view public.anomaly_overview is 'One line an anomaly: when, where, how bad, what changed, and what is done about it.';
comment on column public.anomaly_overview."when" is 'When it was found, by the telemetry''s own clock.';
comment on column public.anomaly_overview.explanation is 'One sentence that says what changed.';
comment on column public.anomaly_overview.status is 'What people do about it.';
comment on column public.anomaly_overview.state is 'What the data do.';

-- A repeat, or a message that was overtaken, never takes an anomaly back.
create or replace function driftlock.only_forward() returns trigger language plpgsql set search_path = '' as $$
begin
    new.organization_id := old.organization_id;
    new.received_at := old.received_at;
    if array_position(array['open', 'ongoing', 'resolved'], new.state)
       < array_position(array['open', 'ongoing', 'resolved'], old.state)
       or new.state = old.state and new.window_count < old.window_count then
        new.state := old.state;
        new.resolved_at := old.resolved_at;
        new.resolution := old.resolution;
        new.window_count := old.window_count;
        new.last_at := old.last_at;
        new.severity := old.severity;
        new.level := old.level;
    end if;
    new.updated_at := now();
    return new;
end
$$;
comment on function driftlock.only_forward is 'Trigger: an anomaly''s state only moves forward, and it stays its organisation''s.';
revoke all on function driftlock.only_forward from public, anon, authenticated;
create or replace trigger only_forward before update on public.anomalies
    for each row execute function driftlock.only_forward();

create or replace function driftlock.count_streams() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    insert into public.streams as s (organization_id, signal, service, name, first_anomaly_at, last_anomaly_at)
    select organization_id, signal, service, stream, min(detected_at), max(detected_at)
    from new_rows group by 1, 2, 3, 4 order by 1, 2, 3, 4
    on conflict (organization_id, signal, service, name) do update set
        first_anomaly_at = least(s.first_anomaly_at, excluded.first_anomaly_at),
        last_anomaly_at = greatest(s.last_anomaly_at, excluded.last_anomaly_at);
    return null;
end
$$;
comment on function driftlock.count_streams is 'Trigger: streams follow anomalies.';
revoke all on function driftlock.count_streams from public, anon, authenticated;
create or replace trigger count_streams after insert on public.anomalies
    referencing new table as new_rows for each statement execute function driftlock.count_streams();

-- The latest change wins, wherever it was made and in whatever order changes arrive; ids break ties.
create or replace function driftlock.apply_status() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    if (select organization_id from public.anomalies where id = new.anomaly_id) is distinct from new.organization_id then
        raise exception 'the anomaly belongs to another organisation' using errcode = 'check_violation';
    end if;
    update public.anomalies a set status = latest.status, status_changed_at = latest.changed_at
    from (
        select h.status, h.changed_at from public.anomaly_status_history h where h.anomaly_id = new.anomaly_id
        order by h.changed_at desc, h.id desc limit 1
    ) latest
    where a.id = new.anomaly_id and (a.status, a.status_changed_at) is distinct from (latest.status, latest.changed_at);
    return null;
end
$$;
comment on function driftlock.apply_status is 'Trigger: an anomaly has the status of its latest change.';
revoke all on function driftlock.apply_status from public, anon, authenticated;
create or replace trigger apply_status after insert on public.anomaly_status_history
    for each row execute function driftlock.apply_status();
create or replace trigger anomaly_status_history_is_append_only before update or truncate on public.anomaly_status_history
    for each statement execute function driftlock.refuse_change();
create or replace trigger anomaly_feedback_is_append_only before update or truncate on public.anomaly_feedback
    for each statement execute function driftlock.refuse_change();

create or replace function driftlock.organization_to_act_on(anomaly uuid) returns uuid
language plpgsql stable security definer set search_path = '' as $$
declare
    found uuid;
begin
    select organization_id into found from public.anomalies where id = anomaly
        and organization_id in (select driftlock.my_organizations(array['owner', 'admin', 'operator']));
    if found is null then
        -- Says the same of an anomaly that does not exist and of one of others.
        raise exception 'no such anomaly, or you are not an operator of its organisation'
            using errcode = 'insufficient_privilege';
    end if;
    return found;
end
$$;
comment on function driftlock.organization_to_act_on is 'The organisation of an anomaly on which the caller may act; an error if they may not.';
revoke all on function driftlock.organization_to_act_on from public, anon, authenticated;

create or replace function public.set_anomaly_status(anomaly uuid, status text, note text default '') returns void
language plpgsql security definer set search_path = '' as $$
declare
    organization uuid := driftlock.organization_to_act_on(anomaly);
    actor text := 'user:' || (select auth.uid());
begin
    insert into public.anomaly_status_history (anomaly_id, organization_id, status, note, actor, origin, changed_at)
    values (anomaly, organization, set_anomaly_status.status, coalesce(set_anomaly_status.note, ''), actor, 'dashboard', clock_timestamp());
    insert into public.audit_log (organization_id, actor, action, subject, detail)
    values (organization, actor, 'status_changed', replace(anomaly::text, '-', ''),
            jsonb_build_object('to', set_anomaly_status.status, 'note', coalesce(set_anomaly_status.note, '')));
end
$$;
comment on function public.set_anomaly_status is 'Says what somebody does about an anomaly; for operators, admins and owners of its organisation.';
revoke all on function public.set_anomaly_status from public, anon;
grant execute on function public.set_anomaly_status to authenticated;

create or replace function public.give_anomaly_feedback(anomaly uuid, verdict text, note text default '') returns void
language plpgsql security definer set search_path = '' as $$
declare
    organization uuid := driftlock.organization_to_act_on(anomaly);
    actor text := 'user:' || (select auth.uid());
begin
    insert into public.anomaly_feedback (anomaly_id, organization_id, verdict, note, actor, origin, given_at)
    values (anomaly, organization, give_anomaly_feedback.verdict, coalesce(give_anomaly_feedback.note, ''), actor,
            'dashboard', clock_timestamp());
    insert into public.audit_log (organization_id, actor, action, subject, detail)
    values (organization, actor, 'feedback_given', replace(anomaly::text, '-', ''),
            jsonb_build_object('verdict', give_anomaly_feedback.verdict, 'note', coalesce(give_anomaly_feedback.note, '')));
end
$$;
comment on function public.give_anomaly_feedback is 'Says whether an anomaly was worth telling; for operators, admins and owners of its organisation.';
revoke all on function public.give_anomaly_feedback from public, anon;
grant execute on function public.give_anomaly_feedback to authenticated;

-- Realtime: one message for each organisation and statement, on the private channel org:<id>. Whoever listens reads
-- the rows themselves, under the policies.
create or replace function driftlock.broadcast_anomalies() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
    change record;
begin
    for change in
        select organization_id, count(*) as changed,
               (array_agg(id order by detected_at desc))[1:100] as ids
        from new_rows group by organization_id
    loop
        perform realtime.send(
            jsonb_build_object('operation', tg_op, 'count', change.changed, 'ids', change.ids),
            'anomalies_changed', 'org:' || change.organization_id, true);
    end loop;
    return null;
end
$$;
comment on function driftlock.broadcast_anomalies is 'Trigger: tells the private channel of each organisation which anomalies changed.';
revoke all on function driftlock.broadcast_anomalies from public, anon, authenticated;

do $$
begin
    if to_regprocedure('realtime.send(jsonb, text, text, boolean)') is null then
        raise notice 'no realtime schema: changes are not broadcast';
        return;
    end if;
    create or replace trigger broadcast_new after insert on public.anomalies
        referencing new table as new_rows for each statement execute function driftlock.broadcast_anomalies();
    create or replace trigger broadcast_changed after update on public.anomalies
        referencing new table as new_rows for each statement execute function driftlock.broadcast_anomalies();
    drop policy if exists "members hear their organisation" on realtime.messages;
    create policy "members hear their organisation" on realtime.messages for select to authenticated
        using (
            extension = 'broadcast'
            and (select realtime.topic()) in (select 'org:' || organization from driftlock.my_organizations() organization)
        );
end
$$;

alter table public.streams enable row level security;
alter table public.anomalies enable row level security;
alter table public.evidence enable row level security;
alter table public.anomaly_status_history enable row level security;
alter table public.anomaly_feedback enable row level security;

revoke all on public.streams, public.anomalies, public.evidence, public.anomaly_status_history,
    public.anomaly_feedback, public.anomaly_overview from anon, authenticated, service_role;
grant select on public.streams, public.anomalies, public.evidence, public.anomaly_status_history,
    public.anomaly_feedback, public.anomaly_overview to authenticated, service_role;
grant insert, update, delete on public.anomalies, public.evidence to service_role;
grant insert on public.anomaly_status_history, public.anomaly_feedback to service_role;

drop policy if exists "members read streams" on public.streams;
create policy "members read streams" on public.streams for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations())));
drop policy if exists "members read anomalies" on public.anomalies;
create policy "members read anomalies" on public.anomalies for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations())));
drop policy if exists "members read evidence" on public.evidence;
create policy "members read evidence" on public.evidence for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations())));
drop policy if exists "members read changes of status" on public.anomaly_status_history;
create policy "members read changes of status" on public.anomaly_status_history for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations())));
drop policy if exists "members read feedback" on public.anomaly_feedback;
create policy "members read feedback" on public.anomaly_feedback for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations())));
