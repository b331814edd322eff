-- Organisations, who belongs to them, their API keys, and the record of who did what.
-- Every migration may run again: it then changes nothing.

create schema if not exists driftlock;
comment on schema driftlock is 'What policies and triggers call; not exposed over the API.';
revoke all on schema driftlock from public;
grant usage on schema driftlock to authenticated, service_role;

create table if not exists public.organizations (
    id uuid primary key default gen_random_uuid(),
    slug text not null unique check (slug ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
    name text not null check (length(name) between 1 and 200),
    quota_action text not null default 'continue' check (quota_action in ('continue', 'block')),
    created_at timestamptz not null default now()
);
comment on table public.organizations is 'Whose telemetry it is.';
comment on column public.organizations.id is 'Id in this database.';
comment on column public.organizations.slug is 'The name that sidecars know it by: the organisation of their API keys.';
comment on column public.organizations.name is 'The name for people.';
comment on column public.organizations.quota_action is 'What happens when the plan''s volume is used up: continue (and pay overage) or block.';
comment on column public.organizations.created_at is 'When it was made.';

create table if not exists public.organization_members (
    organization_id uuid not null references public.organizations (id) on delete cascade,
    user_id uuid not null references auth.users (id) on delete cascade,
    role text not null default 'viewer' check (role in ('owner', 'admin', 'operator', 'viewer')),
    created_at timestamptz not null default now(),
    primary key (organization_id, user_id)
);
create index if not exists organization_members_by_user on public.organization_members (user_id, role, organization_id);
comment on table public.organization_members is 'Who belongs to an organisation, and what they may do there.';
comment on column public.organization_members.organization_id is 'The organisation.';
comment on column public.organization_members.user_id is 'The user.';
comment on column public.organization_members.role is 'viewer reads; operator also acts on anomalies; admin also manages members and keys; owner also makes owners.';
comment on column public.organization_members.created_at is 'Since when.';

create table if not exists public.api_keys (
    id text primary key check (id ~ '^[0-9a-f]{12}$'),
    organization_id uuid not null references public.organizations (id) on delete cascade,
    name text not null default '',
    role text not null default 'sender' check (role in ('sender', 'viewer', 'operator', 'admin')),
    sha256 text not null unique check (sha256 ~ '^[0-9a-f]{64}$'),
    created_at timestamptz not null default now(),
    created_by uuid references auth.users (id) on delete set null,
    expires_at timestamptz,
    revoked_at timestamptz
);
create index if not exists api_keys_by_organization on public.api_keys (organization_id, created_at desc);
create index if not exists api_keys_by_creator on public.api_keys (created_by);
comment on table public.api_keys is 'Keys of sidecars'' users. The key itself is shown once, when it is made, and stored nowhere.';
comment on column public.api_keys.id is 'The twelve digits after dl_ in the key; no secret.';
comment on column public.api_keys.organization_id is 'Whose key it is.';
comment on column public.api_keys.name is 'What it is for.';
comment on column public.api_keys.role is 'What it may do: sender, viewer, operator or admin.';
comment on column public.api_keys.sha256 is 'SHA-256 of the key, hexadecimal; readable by the service alone.';
comment on column public.api_keys.created_at is 'When it was made.';
comment on column public.api_keys.created_by is 'Who made it; empty if they are gone, or it was made elsewhere.';
comment on column public.api_keys.expires_at is 'From then on it is refused; empty if never.';
comment on column public.api_keys.revoked_at is 'Since then it is refused; empty if it is not revoked.';

create table if not exists public.audit_log (
    id uuid primary key default gen_random_uuid(),
    organization_id uuid not null references public.organizations (id) on delete cascade,
    at timestamptz not null default now(),
    actor text not null,
    action text not null,
    subject text not null default '',
    detail jsonb not null default '{}',
    origin text not null default 'dashboard' check (origin in ('dashboard', 'sidecar'))
);
create index if not exists audit_log_by_time on public.audit_log (organization_id, at desc);
create index if not exists audit_log_by_subject on public.audit_log (organization_id, subject, at desc);
comment on table public.audit_log is 'Who did what, here and on the sidecars. Rows are added and never changed.';
comment on column public.audit_log.id is 'From a sidecar: computed from its installation and the number of its own entry, so that a repeat is known.';
comment on column public.audit_log.organization_id is 'Whose record it is.';
comment on column public.audit_log.at is 'When it was done.';
comment on column public.audit_log.actor is 'Who did it: user:<id>, key:<id>, local, or driftlock for what happens by itself.';
comment on column public.audit_log.action is 'What was done, as status_changed.';
comment on column public.audit_log.subject is 'What to: an anomaly''s id, or what the action names.';
comment on column public.audit_log.detail is 'The rest.';
comment on column public.audit_log.origin is 'Where it was done: dashboard or sidecar.';

-- The one place that says who is a member. SECURITY DEFINER, so that policies on organization_members can ask it
-- as well; it answers about the caller alone.
create or replace function driftlock.my_organizations(roles text[] default array['owner', 'admin', 'operator', 'viewer'])
returns setof uuid language sql stable security definer set search_path = '' as $$
    select organization_id from public.organization_members
    where user_id = (select auth.uid()) and role = any (roles)
$$;
comment on function driftlock.my_organizations is 'Organisations in which the caller has one of these roles.';
revoke all on function driftlock.my_organizations from public, anon;
grant execute on function driftlock.my_organizations to authenticated, service_role;

create or replace function driftlock.refuse_change() returns trigger language plpgsql set search_path = '' as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'insufficient_privilege';
end
$$;
comment on function driftlock.refuse_change is 'Trigger of tables whose rows are added and never changed.';
revoke all on function driftlock.refuse_change from public, anon, authenticated;

create or replace function driftlock.keep_an_owner() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    -- Locks the organisation, so that two owners cannot leave at once. It is gone when the whole organisation goes.
    perform 1 from public.organizations where id = old.organization_id for update;
    if found and not exists (
        select 1 from public.organization_members where organization_id = old.organization_id and role = 'owner'
    ) then
        raise exception 'an organisation needs an owner: make another member one first' using errcode = 'check_violation';
    end if;
    return null;
end
$$;
comment on function driftlock.keep_an_owner is 'Trigger: the last owner of an organisation stays.';
revoke all on function driftlock.keep_an_owner from public, anon, authenticated;

create or replace trigger keep_an_owner after update or delete on public.organization_members
    for each row when (old.role = 'owner') execute function driftlock.keep_an_owner();
create or replace trigger audit_log_is_append_only before update or truncate on public.audit_log
    for each statement execute function driftlock.refuse_change();

create or replace function public.create_organization(slug text, name text) returns uuid
language plpgsql security definer set search_path = '' as $$
declare
    made uuid;
begin
    if (select auth.uid()) is null then
        raise exception 'sign in first' using errcode = 'insufficient_privilege';
    end if;
    insert into public.organizations (slug, name) values (create_organization.slug, create_organization.name)
    returning id into made;
    insert into public.organization_members (organization_id, user_id, role) values (made, (select auth.uid()), 'owner');
    insert into public.audit_log (organization_id, actor, action, subject)
    values (made, 'user:' || (select auth.uid()), 'organization_created', create_organization.slug);
    return made;
end
$$;
comment on function public.create_organization is 'Makes an organisation whose owner is the caller; returns its id.';
revoke all on function public.create_organization from public, anon;
grant execute on function public.create_organization to authenticated;

create or replace function public.may_add_member(organization uuid, role text) returns boolean
language sql stable security definer set search_path = '' as $$
    select organization in (select driftlock.my_organizations(
        case when may_add_member.role = 'owner' then array['owner'] else array['owner', 'admin'] end))
        and may_add_member.role in ('owner', 'admin', 'operator', 'viewer')
$$;
comment on function public.may_add_member is 'Whether the caller may add members with this role, before anybody is written to.';
revoke all on function public.may_add_member from public, anon;
grant execute on function public.may_add_member to authenticated;

alter table public.organizations enable row level security;
alter table public.organization_members enable row level security;
alter table public.api_keys enable row level security;
alter table public.audit_log enable row level security;

-- Supabase grants everything on new tables by default; what is meant is granted here.
revoke all on public.organizations, public.organization_members, public.api_keys, public.audit_log
    from anon, authenticated, service_role;
-- An organisation is not deleted through the API: what it has used is kept.
grant select, insert, update on public.organizations to service_role;
grant select, insert, update, delete on public.organization_members, public.api_keys to service_role;
grant select, insert on public.audit_log to service_role;
grant select on public.organizations, public.organization_members, public.audit_log to authenticated;
grant update (name, quota_action) on public.organizations to authenticated;
grant insert, delete, update (role) on public.organization_members to authenticated;
grant select (id, organization_id, name, role, created_at, created_by, expires_at, revoked_at)
    on public.api_keys to authenticated;

drop policy if exists "members read their organisation" on public.organizations;
create policy "members read their organisation" on public.organizations for select to authenticated
    using (id = any (array(select driftlock.my_organizations())));
drop policy if exists "admins change their organisation" on public.organizations;
create policy "admins change their organisation" on public.organizations for update to authenticated
    using (id = any (array(select driftlock.my_organizations(array['owner', 'admin']))))
    with check (id = any (array(select driftlock.my_organizations(array['owner', 'admin']))));

drop policy if exists "members read who belongs" on public.organization_members;
create policy "members read who belongs" on public.organization_members for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations())));
drop policy if exists "admins add members, owners add owners" on public.organization_members;
create policy "admins add members, owners add owners" on public.organization_members for insert to authenticated
    with check (
        organization_id = any (array(select driftlock.my_organizations(array['owner'])))
        or role <> 'owner' and organization_id = any (array(select driftlock.my_organizations(array['admin'])))
    );
drop policy if exists "admins change roles, owners those of owners" on public.organization_members;
create policy "admins change roles, owners those of owners" on public.organization_members for update to authenticated
    using (
        organization_id = any (array(select driftlock.my_organizations(array['owner'])))
        or role <> 'owner' and organization_id = any (array(select driftlock.my_organizations(array['admin'])))
    )
    with check (
        organization_id = any (array(select driftlock.my_organizations(array['owner'])))
        or role <> 'owner' and organization_id = any (array(select driftlock.my_organizations(array['admin'])))
    );
drop policy if exists "members leave, admins remove members" on public.organization_members;
create policy "members leave, admins remove members" on public.organization_members for delete to authenticated
    using (
        user_id = (select auth.uid())
        or organization_id = any (array(select driftlock.my_organizations(array['owner'])))
        or role <> 'owner' and organization_id = any (array(select driftlock.my_organizations(array['admin'])))
    );

drop policy if exists "admins read keys" on public.api_keys;
create policy "admins read keys" on public.api_keys for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations(array['owner', 'admin']))));

drop policy if exists "admins read the record" on public.audit_log;
create policy "admins read the record" on public.audit_log for select to authenticated
    using (organization_id = any (array(select driftlock.my_organizations(array['owner', 'admin']))));
