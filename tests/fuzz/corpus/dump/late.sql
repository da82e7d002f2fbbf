--
-- PostgreSQL database dump
--

SET statement_timeout = 0;

COPY public.audit_chain_head (singleton, epoch, next_offset, state, signed_sequence, signed_state) FROM stdin;
t	1	3	{"anchor":"","headHash":"753f96e9dee5c4bc8252ffcaf3625785fd6dc8c322be1be7a554801d47cfc962","headId":"av-00000000000000000000000000000003","lastCreatedAtUs":"1777636800000002","lastOffset":"2","nextOffset":"3","sequence":"3","writers":{}}	\N	\N
\.

COPY public.audit_log (sequence, id, event_type, created_at, payload, prev_hash, hash, signature, signer_kid) FROM stdin;
1	av-00000000000000000000000000000001	promotion.applied	2026-05-01 12:00:00.000000+00	{"actor":"assay","data":{"list":[1,2,3],"note":"plain","score":0.5},"eventType":"promotion.applied","id":"av-00000000000000000000000000000001","recordedAt":"2026-05-01T12:00:00.000Z","source":{"topic":"eval.scores.v1"},"ts":"2026-05-01T12:00:00.000Z"}	\N	3393df6f87a326e377ff9c7000af21365f7c39e2ebf21fe1569e86f1363a22e2	AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==	eval-audit-signer-v1
2	av-00000000000000000000000000000002	promotion.applied	2026-05-01 12:00:00.000001+00	{"actor":"assay","data":{"list":[1,2,3],"note":"grüße   <&> \\"q\\" \\\\ \\n","score":0.5},"eventType":"promotion.applied","id":"av-00000000000000000000000000000002","recordedAt":"2026-05-01T12:00:00.000Z","source":{"topic":"eval.scores.v1"},"ts":"2026-05-01T12:00:00.000Z"}	3393df6f87a326e377ff9c7000af21365f7c39e2ebf21fe1569e86f1363a22e2	a1cfef0004d5e6ef9876227eca251b53221d2b05b6ecfaac8cda94bda21eb606	\N	eval-audit-signer-v1
3	av-00000000000000000000000000000003	promotion.applied	2026-05-01 12:00:00.000002+00	{"actor":"assay","data":{"list":[1,2,3],"note":"{}","score":0.5},"eventType":"promotion.applied","id":"av-00000000000000000000000000000003","recordedAt":"2026-05-01T12:00:00.000Z","source":{"topic":"eval.scores.v1"},"ts":"2026-05-01T12:00:00.000Z"}	a1cfef0004d5e6ef9876227eca251b53221d2b05b6ecfaac8cda94bda21eb606	753f96e9dee5c4bc8252ffcaf3625785fd6dc8c322be1be7a554801d47cfc962	\N	eval-audit-signer-v1
4	av-00000000000000000000000000000009	x	2026-05-01 14:00:00.5+02	{}	\N	\N	\N	\N
\.

COPY public.audit_signatures (sequence, signature, signer_kid) FROM stdin;
3	AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==	later
2	AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==	eval-audit-signer-v1
\.

COPY public.audit_signers (signer_id, public_key) FROM stdin;
a	b
\.
