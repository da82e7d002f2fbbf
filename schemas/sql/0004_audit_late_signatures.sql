-- A late signature counts where its row has none, and nowhere else: who may add signatures cannot give a row that has one another
-- signer.
CREATE OR REPLACE VIEW audit_events AS
SELECT l.id, l.event_type, l.created_at, l.payload, l.prev_hash, l.hash, COALESCE(l.signature, s.signature) AS signature,
       CASE WHEN l.signature IS NULL THEN COALESCE(s.signer_kid, l.signer_kid) ELSE l.signer_kid END AS signer_kid, l.sequence
FROM audit_log l LEFT JOIN audit_signatures s USING (sequence)
WHERE l.sequence < COALESCE((SELECT min(w.sequence) FROM audit_log w
                             WHERE w.signature IS NULL AND w.sequence > (SELECT COALESCE(max(sequence), 0) FROM audit_signatures)),
                            9223372036854775807);
