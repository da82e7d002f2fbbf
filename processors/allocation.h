// Allocation: promotions in, grants out of pools with capacity and quotas. One task owns every pool, so none is over-committed.
#pragma once

#include "processors/policy.h"
#include "processors/processor.h"
#include "processors/rules.h"

namespace assay::processors {

/// An applied promotion asks for the default grant, an applied demotion gives back what its entity holds or waits for.
/// States (no finance and no infrastructure gateway stands between reserved and applied yet):
///   requested -> rejected | gated (waits) | reserved -> applied -> released
///
/// Order of service. Requests wait per pool and division, higher priority first, then in folding order. The next to be served
/// is the first of all divisions whose quota has room for their own first. If the pool has no room for it, nobody is served:
/// a small request never overtakes a big one that waits for capacity, so none starves. A division at its quota stands aside,
/// for only its own releases can help it, and others must not wait for those.
///
/// Fewer units by configuration take nothing away: capacity and quotas count as at least what is in use, and fall with each
/// release. A request that could no longer fit at all is rejected then, for at the head it would block its pool for ever.
///
/// Source: promotion.events.v1 (all partitions) and config.v1.
///
/// Rows: "rules/<kind>"           the config.v1 value in force
///       "sequence"               folding order of the next request
///       "allocation/<id>"        canonical JSON: the last event, and what serving it needs
///       "entity/<id>"            ids of the allocations that the entity holds or waits for, in folding order
///       "pool/<name>"            canonical JSON: units in use, per division units held and requests waiting
///       "waiting/<pool> NUL <division> NUL <priority, inverted><sequence>"   id of the allocation that waits
///       "demotion/<id>"          folded demotions: the same one again must not release a later grant
class Allocation final : public Processor {
 public:
  explicit Allocation(Rows& rows);

  void process(const Input& input, Outputs& outputs) override;
  void before_commit(WallTime, Outputs&) override {}
  void after_commit() override {}

 private:
  struct Promoted;
  struct Request;
  struct PoolUse;

  void fold_promotion(const Input& input, Outputs& outputs);
  void request(const Promoted& promotion, Outputs& outputs);
  void release(const Promoted& promotion, Outputs& outputs);
  void rules_changed(const Rules& before, Outputs& outputs);
  void serve(const std::string& pool, std::string_view ts, Outputs& outputs);

  Rows& rows_;
  FoldedRules rules_;
  IdSequence ids_;
};

/// The last event of each allocation, in folding order. Errors: those of the reader; kCorrupt.
Result<Json> allocations_json(const state::Reader& reader);
/// {"pool","unit","capacity","used","reserved","available","quotas":[{"divisionId","quota","used"}]} of each pool that is configured
/// or still in use, by name. Errors: those of the reader; kCorrupt.
Result<Json> pools_json(const state::Reader& reader);

}  // namespace assay::processors
