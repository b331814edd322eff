begin;
\ir include/organizations.sql
select plan(6);

select is(
    (select string_agg(relname, ', ') from pg_class where relnamespace = 'public'::regnamespace
        and relkind in ('r', 'p') and not relrowsecurity),
    null, 'every table has row-level security');
select is(
    (select string_agg(relname, ', ') from pg_class c where relnamespace = 'public'::regnamespace
        and relkind in ('r', 'p') and not relispartition
        and not exists (select from pg_policies p where p.schemaname = 'public' and p.tablename = c.relname)),
    null, 'every table has policies');
select is(
    (select string_agg(tablename || '.' || policyname, ', ') from pg_policies where schemaname = 'public' and cmd = 'ALL'),
    null, 'no policy is for all commands at once');
select is(
    (select string_agg(format('%s for %s', tablename, cmd), ', ')
     from (select tablename, cmd from pg_policies where schemaname = 'public' group by 1, 2 having count(*) > 1) t),
    null, 'a command has one policy');
select is(
    (select string_agg(relname, ', ') from pg_class where relnamespace = 'public'::regnamespace and relkind = 'v'
        and not coalesce(reloptions @> array['security_invoker=true'], false)),
    null, 'views are read as who reads them');
select is(
    (select string_agg(proname, ', ') from pg_proc where pronamespace::regnamespace::text in ('public', 'driftlock')
        and (prosecdef and not coalesce(proconfig @> array['search_path=""'], false)
             or has_function_privilege('anon', oid, 'execute'))),
    null, 'functions with their owner''s rights have no search path, and nobody signed out may call one');

select * from finish();
rollback;
