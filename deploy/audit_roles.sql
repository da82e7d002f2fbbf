-- The rights by which the chain in PostgreSQL stays what it is. Run by the owner of the schema, after `assay audit migrate`:
--
--   psql -v app=assay_app -v auditor=assay_auditor -v eraser=assay_eraser -f deploy/audit_roles.sql "$OWNER_URL"
--
-- `app` is the role that `assay run` connects as: it adds rows and signatures, reads, and moves the head of the chain; nothing that
-- it wrote can it change or remove. `auditor` reads, personal data too, which nobody else can. `eraser` is the one that `assay audit
-- erase` connects as: it deletes personal data where no legal hold covers it, and cannot read it. None of them owns anything. Give
-- each a password and LOGIN as your site does it.
\set ON_ERROR_STOP on
\if :{?eraser}
\else
  \set eraser assay_eraser
\endif
SELECT format('CREATE ROLE %I NOLOGIN', name) FROM unnest(ARRAY[:'app', :'auditor', :'eraser']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

BEGIN;
REVOKE ALL ON audit_log, audit_signatures, audit_signers, audit_chain_head, assay_migrations, audit_events, audit_staging,
  audit_personal FROM PUBLIC, :"app", :"auditor", :"eraser";
REVOKE CREATE ON SCHEMA public FROM PUBLIC, :"app", :"auditor", :"eraser";
GRANT USAGE ON SCHEMA public TO :"app", :"auditor", :"eraser";
GRANT SELECT ON audit_log, audit_signatures, audit_signers, audit_chain_head, assay_migrations, audit_events, audit_staging
  TO :"app", :"auditor", :"eraser";
GRANT INSERT ON audit_personal TO :"app", :"eraser";
GRANT SELECT ON audit_personal TO :"auditor";
GRANT SELECT (reference, event_id, subject), DELETE ON audit_personal TO :"eraser";
GRANT INSERT ON audit_log, audit_signatures, audit_signers TO :"app";
GRANT UPDATE (epoch, next_offset, state, signed_sequence, signed_state) ON audit_chain_head TO :"app";
COMMIT;
