begin;
\ir include/organizations.sql
select plan(13);
set local role service_role;

select throws_ok('update usage_events set items = 0', '42501', null, 'not even the service changes usage');
select throws_ok('delete from usage_events', '42501', null, 'or takes it back');
select throws_ok('update usage_hourly set items = 0', '42501', null, 'or writes sums');
select throws_ok('update anomaly_status_history set status = ''new''', '42501', null, 'or the history');
select throws_ok('update audit_log set actor = ''nobody''', '42501', null, 'or the record');

insert into usage_events (id, hour, organization_id, source, signal, log_position, items, bytes, requests)
select id, hour, organization_id, source, signal, log_position, items, bytes, requests from usage_events on conflict do nothing;
select is((select sum(items) from usage_monthly), 400000000::numeric, 'a repeated event is not counted');
insert into usage_events (id, hour, organization_id, source, signal, log_position, items, bytes, requests)
select gen_random_uuid(), '2026-11-01 13:00Z', '00000000-0000-4000-8000-000000000001',
       '00000000-0000-4000-8000-0000000000f1', 'logs', 0, 25000000, 5, 1;
select is(
    (select string_agg(format('%s: %s', hour at time zone 'UTC', items), ', ' order by hour) from usage_hourly
     where organization_id = '00000000-0000-4000-8000-000000000001'),
    '2026-11-01 12:00:00: 200000000, 2026-11-01 13:00:00: 25000000', 'a new one is, in its hour');
select is(
    (select string_agg(percent::text, ', ' order by percent) from quota_alerts
     where organization_id = '00000000-0000-4000-8000-000000000001'),
    '70, 90', 'and each threshold is alerted once');

update anomalies set state = 'resolved', resolved_at = '2026-11-01 12:10Z', resolution = 'recovered', window_count = 4;
update anomalies set state = 'open', resolved_at = null, resolution = '', window_count = 1;
select is((select string_agg(distinct state || ' ' || window_count, ', ') from anomalies), 'resolved 4',
    'what was overtaken does not take an anomaly back');
insert into anomaly_status_history (anomaly_id, organization_id, status, actor, origin, changed_at)
values ('00000000-0000-4000-8000-000000000011', '00000000-0000-4000-8000-000000000001', 'new', 'local', 'sidecar',
        '2026-11-01 12:00:30Z');
select is((select status from anomalies where id = '00000000-0000-4000-8000-000000000011'), 'investigating',
    'a change of status that comes late does not win over a later one');
select throws_ok(
    $$insert into anomaly_status_history (anomaly_id, organization_id, status, actor, origin)
      values ('00000000-0000-4000-8000-000000000011', '00000000-0000-4000-8000-000000000002', 'new', 'local', 'sidecar')$$,
    '23514', null, 'nor may it be another organisation''s');
select is((select count(*) from streams)::integer, 2, 'streams follow anomalies');
select lives_ok('select keep_house()', 'and the service keeps house');

select * from finish();
rollback;
