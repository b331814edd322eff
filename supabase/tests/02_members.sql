begin;
\ir include/organizations.sql
select plan(34);

set local role anon;
select throws_ok('select * from anomalies', '42501', null, 'signed out, nothing is read');
select throws_ok('select * from anomaly_overview', '42501', null, 'nor through a view');
select is((select count(*) from plans)::integer, 3, 'but for the price list');

set local role authenticated;
set local request.jwt.claims = '{"sub": "00000000-0000-4000-8000-00000000000f"}';
select is((select count(*) from anomalies)::integer, 0, 'who belongs nowhere reads nothing');
select is((select count(*) from organizations)::integer, 0, 'and sees no organisation');

set local request.jwt.claims = '{"sub": "00000000-0000-4000-8000-00000000000d"}';
select is((select string_agg(organization, ', ') from anomaly_overview), 'One', 'a viewer reads their own organisation');
select throws_ok('update usage_monthly set items = 0', '42501', null, 'and does not edit usage');
select throws_ok('update subscriptions set plan_id = ''business''', '42501', null, 'nor the plan');
select throws_ok('insert into usage_events select * from usage_events', '42501', null, 'nor adds usage');
select throws_ok('update anomalies set status = ''dismissed''', '42501', null, 'nor writes anomalies');
select throws_ok(
    $$select set_anomaly_status('00000000-0000-4000-8000-000000000011', 'dismissed')$$, '42501', null,
    'a viewer sets no status');
select throws_ok(
    $$select give_anomaly_feedback('00000000-0000-4000-8000-000000000011', 'false_alarm')$$, '42501', null,
    'a viewer gives no feedback');
select throws_ok('select sha256 from api_keys', '42501', null, 'nobody reads the hash of a key');
select is((select count(id) from api_keys)::integer, 0, 'a viewer sees no keys');
select is((select count(*) from invoices)::integer, 0, 'and no invoices');
select is((select count(*) from organization_members)::integer, 4, 'but who belongs');

set local request.jwt.claims = '{"sub": "00000000-0000-4000-8000-00000000000c"}';
select lives_ok(
    $$select set_anomaly_status('00000000-0000-4000-8000-000000000011', 'dismissed', 'a release')$$,
    'an operator sets a status');
select is((select status from anomalies), 'dismissed', 'which the anomaly then has');
select is(
    (select string_agg(note || ' by ' || actor, ', ') from anomaly_status_history where origin = 'dashboard'),
    'a release by user:00000000-0000-4000-8000-00000000000c', 'and the history says who');
select throws_ok(
    $$select set_anomaly_status('00000000-0000-4000-8000-000000000021', 'dismissed')$$, '42501',
    'no such anomaly, or you are not an operator of its organisation', 'not one of another organisation');
select throws_ok(
    $$select set_anomaly_status('00000000-0000-4000-8000-0000000000ff', 'dismissed')$$, '42501',
    'no such anomaly, or you are not an operator of its organisation', 'whose existence is not told');
select throws_ok(
    $$select set_anomaly_status('00000000-0000-4000-8000-000000000011', 'pending')$$, '23514', null,
    'and not one that does not exist');
select throws_ok('insert into organization_members select organization_id, ''00000000-0000-4000-8000-00000000000f'' from organization_members limit 1', '42501', null, 'an operator adds no members');

set local request.jwt.claims = '{"sub": "00000000-0000-4000-8000-00000000000b"}';
select is((select count(*) from audit_log)::integer, 2, 'an admin reads the record');
select lives_ok(
    $$insert into organization_members values ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-00000000000f', 'viewer')$$,
    'and adds members');
select throws_ok(
    $$update organization_members set role = 'owner' where user_id = '00000000-0000-4000-8000-00000000000f'$$, '42501', null,
    'but makes no owners');
select throws_ok(
    $$insert into organization_members values ('00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-00000000000b', 'viewer')$$,
    '42501', null, 'nor lets themselves into another organisation');
select ok(may_add_member('00000000-0000-4000-8000-000000000001', 'operator'), 'and is told so beforehand');
select ok(not may_add_member('00000000-0000-4000-8000-000000000001', 'owner'), 'about owners, too');
select ok(not may_add_member('00000000-0000-4000-8000-000000000002', 'viewer'), 'and about others');
select throws_ok('update organizations set slug = ''two''', '42501', null, 'nor takes another''s name');

set local request.jwt.claims = '{"sub": "00000000-0000-4000-8000-00000000000a"}';
select throws_ok('delete from organization_members where user_id = (select auth.uid())', '23514', null, 'the last owner stays');

reset role;
set local realtime.topic = 'org:00000000-0000-4000-8000-000000000001';
set local role authenticated;
select ok((select count(*) > 0 from realtime.messages), 'members hear their organisation''s channel');
set local request.jwt.claims = '{"sub": "00000000-0000-4000-8000-00000000000e"}';
select is((select count(*) from realtime.messages)::integer, 0, 'others do not');

select * from finish();
rollback;
