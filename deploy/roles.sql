-- Two roles for PostgreSQL: the owner migrates and prunes; the service serves, and can neither change nor delete rows of
-- the log and of definitions, nor lift the triggers that refuse this, because it owns no table.
--
-- Run it as a superuser in the service's database, after `db upgrade`, and again after each upgrade:
--     psql -d stateservice -v ON_ERROR_STOP=1 -f deploy/roles.sql
-- Passwords are set apart: ALTER ROLE stateservice PASSWORD '...'.

DO $$
DECLARE
    item record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'stateservice_owner') THEN
        CREATE ROLE stateservice_owner LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'stateservice') THEN
        CREATE ROLE stateservice LOGIN;
    END IF;
    -- A role that may create in the schema could put a function of its own in the place of ours.
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, stateservice', current_schema());
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO stateservice_owner', current_schema());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO stateservice', current_schema());

    -- Tables first: a sequence that belongs to a table follows it.
    FOR item IN
        SELECT c.oid::regclass AS name, c.relkind = 'v' AS is_view FROM pg_class c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v') ORDER BY c.relkind DESC
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO stateservice_owner', CASE WHEN item.is_view THEN 'VIEW' ELSE 'TABLE' END, item.name);
        EXECUTE format('REVOKE ALL ON %s FROM stateservice', item.name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO stateservice', item.name);
    END LOOP;
    FOR item IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p WHERE p.pronamespace = current_schema()::regnamespace
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO stateservice_owner', item.name);
    END LOOP;
    EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA %I TO stateservice', current_schema());

    -- What a trigger guards is only ever added to: the log and the definitions.
    FOR item IN
        SELECT DISTINCT t.tgrelid::regclass AS name FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND t.tgname LIKE '%\_refuses\_%'
    LOOP
        EXECUTE format('REVOKE UPDATE, DELETE ON %s FROM stateservice', item.name);
    END LOOP;
    -- The owner alone says which revision the schema has.
    REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM stateservice;
END
$$;
