-- The audit chain: rows, where the chain stands, and the keys that signed.

-- json, not jsonb: the text is the canonical one that was hashed, and stays as it is.
CREATE TABLE audit_log (
  sequence    bigint PRIMARY KEY CHECK (sequence > 0),
  id          text NOT NULL,
  event_type  text NOT NULL,
  created_at  timestamptz NOT NULL UNIQUE,
  payload     json NOT NULL,
  prev_hash   text,
  hash        text NOT NULL,
  signature   text,
  signer_kid  text
);
CREATE INDEX audit_log_id ON audit_log (id);
CREATE INDEX audit_log_event_type ON audit_log (event_type, sequence);
CREATE INDEX audit_log_unsigned ON audit_log (sequence) WHERE signature IS NULL;

-- One row. `epoch` is the writer's right to write, `next_offset` the place in the partition of audit-events.
CREATE TABLE audit_chain_head (
  singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  epoch       bigint NOT NULL DEFAULT 0,
  next_offset bigint NOT NULL DEFAULT 0,
  state       json NOT NULL  -- the whole fold so far: sequence, hash and id of the last row, writers
);
INSERT INTO audit_chain_head (state)
VALUES ('{"anchor":"","headHash":null,"headId":"","lastCreatedAtUs":"0","lastOffset":"-1","nextOffset":"0","sequence":"0","writers":{}}');

CREATE TABLE audit_signers (
  signer_id   text PRIMARY KEY,
  public_key  text NOT NULL UNIQUE,
  algorithm   text NOT NULL,
  added_at    timestamptz NOT NULL DEFAULT now()
);

-- Rows that wait for a signature, or behind one that does, must not be seen: a verifier passes at every instant.
CREATE VIEW audit_events AS
SELECT id, event_type, created_at, payload, prev_hash, hash, signature, signer_kid, sequence
FROM audit_log
WHERE sequence < COALESCE((SELECT min(sequence) FROM audit_log WHERE signature IS NULL), 9223372036854775807);

CREATE VIEW audit_staging AS
SELECT id AS "eventId",
       CASE WHEN signature IS NULL THEN 'pending_signature' ELSE 'pending_predecessor' END AS status,
       created_at
FROM audit_log
WHERE sequence >= (SELECT min(sequence) FROM audit_log WHERE signature IS NULL);
