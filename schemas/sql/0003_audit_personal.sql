-- Personal data beside the chain: plaintext and salt of what its rows hold as a commitment. Nothing else of the evidence is ever deleted.

CREATE TABLE audit_personal (
  reference text PRIMARY KEY,  -- "personal:" and 64 hex digits, as the event has it
  event_id  text NOT NULL,
  field     text NOT NULL,
  subject   text NOT NULL,     -- whom it is about
  salt      text NOT NULL,
  plaintext text NOT NULL
);
CREATE INDEX audit_personal_subject ON audit_personal (subject);

-- The holds are those of the chain's own head, so that none can be passed over by whoever deletes with other means than `assay`.
-- Names are looked up in public alone: a temporary table of the same name must not stand in.
CREATE FUNCTION audit_personal_held() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
  held text;
BEGIN
  SELECT h->>'hold' INTO held
  FROM audit_chain_head, json_array_elements(COALESCE(state->'control'->'corrections'->'holds', '[]')) h
  WHERE h->'scope'->'everything' IS NOT NULL
     OR (h->'scope'->'subject' IS NOT NULL
         AND COALESCE((SELECT p.subject = OLD.subject FROM audit_personal p WHERE p.reference = h->'scope'->>'subject'), true))
     OR EXISTS (SELECT FROM audit_log l
                WHERE l.id = OLD.event_id AND l.sequence >= (h->'scope'->'rows'->>'from')::bigint
                  AND l.sequence < (h->'scope'->'rows'->>'to')::bigint)
  LIMIT 1;
  IF held IS NOT NULL THEN
    RAISE EXCEPTION 'legal hold % covers %', held, OLD.reference USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN OLD;
END $$;
CREATE TRIGGER audit_personal_held BEFORE DELETE ON audit_personal FOR EACH ROW EXECUTE FUNCTION audit_personal_held();

CREATE FUNCTION audit_personal_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'audit_personal: rows are added, and deleted one by one where no legal hold covers them'
    USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER audit_personal_fixed BEFORE UPDATE OR TRUNCATE ON audit_personal
  FOR EACH STATEMENT EXECUTE FUNCTION audit_personal_fixed();
