-- Two organisations, a user of each role in the first, one anomaly and some usage in each.
do $$
begin
    if to_regprocedure('extensions.throws_ok(text, char, text, text)') is null then
        create extension pgtap with schema extensions;
    end if;
end
$$;
set local search_path = public, extensions;

insert into auth.users (id, email) values
    ('00000000-0000-4000-8000-00000000000a', 'owner@one.test'),
    ('00000000-0000-4000-8000-00000000000b', 'admin@one.test'),
    ('00000000-0000-4000-8000-00000000000c', 'operator@one.test'),
    ('00000000-0000-4000-8000-00000000000d', 'viewer@one.test'),
    ('00000000-0000-4000-8000-00000000000e', 'owner@two.test'),
    ('00000000-0000-4000-8000-00000000000f', 'nobody@nowhere.test');
insert into organizations (id, slug, name) values
    ('00000000-0000-4000-8000-000000000001', 'one', 'One'),
    ('00000000-0000-4000-8000-000000000002', 'two', 'Two');
insert into organization_members (organization_id, user_id, role) values
    ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-00000000000a', 'owner'),
    ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-00000000000b', 'admin'),
    ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-00000000000c', 'operator'),
    ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-00000000000d', 'viewer'),
    ('00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-00000000000e', 'owner');
insert into anomalies (
    id, organization_id, detected_at, service, signal, severity, state, explanation, score, p_value, bits, ncd,
    compression_ratio, baseline_compression_ratio, entropy_bits, baseline_entropy_bits, record_count, baseline_windows,
    baseline_records, window_start_at, window_end_at, last_at
)
select format('00000000-0000-4000-8000-0000000000%s1', n)::uuid, format('00000000-0000-4000-8000-00000000000%s', n)::uuid,
       '2026-11-01 12:00Z', 'checkout', 'logs', 'high', 'open', 'something changed', 0.8, 0.001, 14, 0.5, 5, 9, 3, 2, 50,
       100, 5000, '2026-11-01 11:59Z', '2026-11-01 12:00Z', '2026-11-01 12:00Z'
from generate_series(1, 2) n;
insert into evidence (anomaly_id, rank, organization_id, field, kind, bits, sentence)
select id, 1, organization_id, 'template', 'pattern', 14, 'a new template' from anomalies;
insert into anomaly_status_history (anomaly_id, organization_id, status, actor, origin, changed_at)
select id, organization_id, 'investigating', 'local', 'sidecar', '2026-11-01 12:01Z' from anomalies;
insert into anomaly_feedback (anomaly_id, organization_id, verdict, actor, origin)
select id, organization_id, 'confirmed', 'local', 'sidecar' from anomalies;
insert into api_keys (id, organization_id, sha256)
select format('%s%s', repeat('0', 11), n), format('00000000-0000-4000-8000-00000000000%s', n)::uuid,
       format('%s%s', repeat('0', 63), n) from generate_series(1, 2) n;
insert into audit_log (organization_id, actor, action) select id, 'local', 'made' from organizations;
insert into subscriptions (organization_id, plan_id, status, current_period_start, current_period_end)
select id, 'team', 'active', '2026-11-01Z', '2026-12-01Z' from organizations;
insert into billing_customers (organization_id, stripe_customer_id) select id, 'cus_' || slug from organizations;
insert into invoices (id, organization_id, status, amount_due_cents, amount_paid_cents, currency, period_start,
                      period_end, created_at)
select 'in_' || slug, id, 'paid', 4900, 4900, 'usd', '2026-11-01Z', '2026-12-01Z', '2026-11-01Z' from organizations;
insert into stripe_events (id, type, payload) values ('evt_1', 'invoice.paid', '{}');
-- 80 % of the plan's volume: enough for the first alert.
insert into usage_events (id, hour, organization_id, source, signal, log_position, items, bytes, requests)
select gen_random_uuid(), '2026-11-01 12:00Z', id, '00000000-0000-4000-8000-0000000000f1', 'logs', 0, 200000000, 1, 1
from organizations;
insert into stripe_reports (identifier, organization_id, hour, items)
select id || ':0', id, '2026-11-01 12:00Z', 5 from organizations;
