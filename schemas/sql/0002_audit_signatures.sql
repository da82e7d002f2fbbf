-- Signatures that came later than their rows. Rows of audit_log are never touched again, so that whoever writes the chain needs no
-- right to change it.

CREATE TABLE audit_signatures (
  sequence   bigint PRIMARY KEY,
  signature  text NOT NULL,
  signer_kid text NOT NULL
);

-- Where the signed part ends while rows wait behind it; null: no row waits.
ALTER TABLE audit_chain_head
  ADD COLUMN signed_sequence bigint,
  ADD COLUMN signed_state json,
  ADD CHECK ((signed_sequence IS NULL) = (signed_state IS NULL));

-- Late signatures come in the order of their rows: behind the last of them, the first row without one is where the visible part ends.
CREATE OR REPLACE VIEW audit_events AS
SELECT l.id, l.event_type, l.created_at, l.payload, l.prev_hash, l.hash, COALESCE(l.signature, s.signature) AS signature,
       COALESCE(s.signer_kid, l.signer_kid) AS signer_kid, l.sequence
FROM audit_log l LEFT JOIN audit_signatures s USING (sequence)
WHERE l.sequence < COALESCE((SELECT min(w.sequence) FROM audit_log w
                             WHERE w.signature IS NULL AND w.sequence > (SELECT COALESCE(max(sequence), 0) FROM audit_signatures)),
                            9223372036854775807);

CREATE OR REPLACE VIEW audit_staging AS
SELECT l.id AS "eventId",
       CASE WHEN l.signature IS NULL THEN 'pending_signature' ELSE 'pending_predecessor' END AS status,
       l.created_at
FROM audit_log l
WHERE l.sequence >= (SELECT min(w.sequence) FROM audit_log w
                     WHERE w.signature IS NULL AND w.sequence > (SELECT COALESCE(max(sequence), 0) FROM audit_signatures));
