-- As much of pgTAP as tests/*.sql use, for a PostgreSQL without that extension: the names, arguments and lines of
-- output are pgTAP's. `supabase test db` brings pgTAP itself.

create schema if not exists extensions;
grant usage on schema extensions to public;

create or replace function extensions.ok(passed boolean, description text) returns text language plpgsql as $$
declare
    number integer := coalesce(nullif(current_setting('tap.count', true), ''), '0')::integer + 1;
begin
    perform set_config('tap.count', number::text, true);
    return case when passed then 'ok ' else 'not ok ' end || number || ' - ' || description;
end
$$;

create or replace function extensions.is(have anyelement, want anyelement, description text) returns text
language sql as $$
    select extensions.ok(have is not distinct from want, description)
        || case when have is not distinct from want then ''
           else format(E'\n#   have: %s\n#   want: %s', have, want) end
$$;

create or replace function extensions.throws_ok(query text, errcode char(5), errmsg text, description text) returns text
language plpgsql as $$
begin
    begin
        execute query;
    exception when others then
        return extensions.ok(sqlstate = errcode and (errmsg is null or sqlerrm = errmsg), description)
            || case when sqlstate = errcode and (errmsg is null or sqlerrm = errmsg) then ''
               else format(E'\n#   caught: %s %s\n#   wanted: %s %s', sqlstate, sqlerrm, errcode, errmsg) end;
    end;
    return extensions.ok(false, description) || E'\n#   nothing was thrown';
end
$$;

create or replace function extensions.lives_ok(query text, description text) returns text language plpgsql as $$
begin
    begin
        execute query;
    exception when others then
        return extensions.ok(false, description) || format(E'\n#   died: %s %s', sqlstate, sqlerrm);
    end;
    return extensions.ok(true, description);
end
$$;

create or replace function extensions.plan(planned integer) returns text language plpgsql as $$
begin
    perform set_config('tap.count', '0', true), set_config('tap.planned', planned::text, true);
    return '1..' || planned;
end
$$;

create or replace function extensions.finish() returns setof text language sql as $$
    select format('# Looks like you planned %s tests but ran %s',
                  current_setting('tap.planned'), current_setting('tap.count'))
    where current_setting('tap.planned') <> current_setting('tap.count')
$$;
