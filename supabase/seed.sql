-- Something to look at on a development database: `supabase db reset` loads it. Not for production.

insert into auth.users (id, email) values
    ('00000000-0000-4000-8000-000000000001', 'owner@example.com'),
    ('00000000-0000-4000-8000-000000000002', 'viewer@example.com')
on conflict do nothing;
insert into public.organizations (id, slug, name) values
    ('00000000-0000-4000-8000-0000000000a1', 'acme', 'Acme')
on conflict do nothing;
insert into public.organization_members (organization_id, user_id, role) values
    ('00000000-0000-4000-8000-0000000000a1', '00000000-0000-4000-8000-000000000001', 'owner'),
    ('00000000-0000-4000-8000-0000000000a1', '00000000-0000-4000-8000-000000000002', 'viewer')
on conflict do nothing;
insert into public.anomalies (
    id, organization_id, detected_at, service, signal, severity, level, state, explanation, score, p_value, bits, ncd,
    compression_ratio, baseline_compression_ratio, entropy_bits, baseline_entropy_bits, record_count, baseline_windows,
    baseline_records, window_start_at, window_end_at, last_at, template
) values (
    '5d3c0000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-0000000000a1', now() - interval '5 minutes',
    'checkout', 'logs', 'high', 'page', 'open',
    '41 of 50 log lines follow a new pattern ''payment gateway timeout after <*> ms''', 0.81, 0.0007, 18.2, 0.62,
    6.1, 11.4, 3.2, 1.9, 50, 120, 6000, now() - interval '6 minutes', now() - interval '5 minutes',
    now() - interval '5 minutes', 'payment gateway timeout after <*> ms'
) on conflict do nothing;
insert into public.usage_events (id, hour, organization_id, source, signal, log_position, items, bytes, requests) values
    ('00000000-0000-4000-8000-0000000000e1', date_trunc('hour', now(), 'UTC'), '00000000-0000-4000-8000-0000000000a1',
     '00000000-0000-4000-8000-0000000000f1', 'logs', 0, 1200, 480000, 24)
on conflict do nothing;
