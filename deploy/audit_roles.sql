-- The rights by which the chain in PostgreSQL stays what it is. Run by the owner of the schema, after `assay audit migrate`:
--
--   psql -v app=assay_app -v auditor=assay_auditor -f deploy/audit_roles.sql "$OWNER_URL"
--
-- `app` is the role that `assay run` connects as: it adds rows and signatures, reads, and moves the head of the chain; nothing that
-- it wrote can it change or remove. `auditor` reads. Neither owns anything. Give both a password and LOGIN as your site does it.
\set ON_ERROR_STOP on
SELECT format('CREATE ROLE %I NOLOGIN', name) FROM unnest(ARRAY[:'app', :'auditor']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

BEGIN;
REVOKE ALL ON audit_log, audit_signatures, audit_signers, audit_chain_head, assay_migrations, audit_events, audit_staging FROM PUBLIC;
REVOKE ALL ON audit_log, audit_signatures, audit_signers, audit_chain_head, assay_migrations, audit_events, audit_staging
  FROM :"app", :"auditor";
REVOKE CREATE ON SCHEMA public FROM PUBLIC, :"app", :"auditor";
GRANT USAGE ON SCHEMA public TO :"app", :"auditor";
GRANT SELECT ON audit_log, audit_signatures, audit_signers, audit_chain_head, assay_migrations, audit_events, audit_staging
  TO :"app", :"auditor";
GRANT INSERT ON audit_log, audit_signatures, audit_signers TO :"app";
GRANT UPDATE (epoch, next_offset, state, signed_sequence, signed_state) ON audit_chain_head TO :"app";
COMMIT;
