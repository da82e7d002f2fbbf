// Allocation: promotions in, grants out of pools with capacity and quotas. One task owns every pool, so none is over-committed.
#pragma once

#include "processors/policy.h"
#include "processors/processor.h"
#include "processors/rules.h"

namespace assay::processors {

/// An applied promotion asks for the default grant, an applied demotion gives back what its entity holds or waits for.
/// States (neither finance nor an infrastructure gateway stands between reserved and applied yet):
///   requested -> rejected | gated (waits) | reserved -> applied -> released
/// The policy gate is asked when a request arrives and again before one that waited is served: the rules may have changed.
///
/// Order of service. Requests wait per pool and division, higher priority first, then in folding order. The next to be served
/// is the first among the heads of those divisions whose quota has room for their head. If the pool has no room for it, nobody
/// is served: a small request never overtakes a big one that waits for capacity, so none starves. A division at its quota
/// stands aside, for only its own releases can help it, and others must not wait for those.
///
/// Fewer units by configuration take nothing away: capacity and quotas count as at least what is in use, and fall with each
/// release. A request that can no longer fit at all is rejected then, for at the head it would block its pool for ever.
///
/// The `ts` of an event is that of the promotion or demotion which caused it; where a config record caused it, which has no
/// event time, that of the request's own promotion.
///
/// Source: promotion.events.v1 (all partitions) and config.v1.
///
/// Rows: "rules/<kind>"           the config.v1 value in force
///       "sequence"               folding order of the next request, in decimal
///       "allocation/<id>"        canonical JSON: the last event, and what serving it needs
///       "entity/<id>"            canonical JSON: ids of the allocations that it holds or waits for, in folding order
///       "pool/<name>"            canonical JSON: unit, units in use, per division units held and requests waiting; none: no row
///       "waiting/<pool bytes>:<pool><division> NUL <inverted priority, 16 hex><sequence, 16 hex>"   id of the allocation
///       "demotion/<id>"          a folded demotion: the same one again must not release a later grant
class Allocation final : public Processor {
 public:
  explicit Allocation(Rows& rows);

  void process(const Input& input, Outputs& outputs) override;
  void before_commit(WallTime, Outputs&) override {}
  void after_commit() override {}

 private:
  struct Decided;
  struct Request;
  struct PoolUse;

  void fold_promotion(const Input& input, Outputs& outputs);
  void ask(const Decided& promotion, const Id& allocation_id, Outputs& outputs);
  void give_back(const Decided& demotion, Outputs& outputs);
  void pools_changed(Outputs& outputs);
  void recount(const std::string& pool, const std::string& unit);
  void reject_hopeless(const std::string& pool, Outputs& outputs);
  /// Serves every request that can be served now. `asked`: the request of this very record, which the gate has let pass already.
  void serve(const std::string& pool, std::string_view ts, std::string_view asked, Outputs& outputs);

  bool gate_allows(Request& request, std::string_view ts, Outputs& outputs);
  /// For good, also when it waited: its entity has nothing to give back.
  void reject(Request& request, std::string reason, std::string_view ts, Outputs& outputs);
  void emit(Request& request, std::string_view state, std::string reason, std::string_view ts, Outputs& outputs);
  std::optional<std::string> hopeless(const Request& request) const;
  std::string why_it_waits(const Request& request) const;

  void enqueue(const Request& request);
  void leave_queue(const Request& request);
  int64_t next_sequence();
  Request load(std::string_view allocation_id) const;
  void store(const Request& request);
  PoolUse load_pool(const std::string& pool) const;
  void store_pool(const std::string& pool, const PoolUse& use);
  std::vector<std::string> entity_allocations(std::string_view entity_id) const;
  void store_entity(std::string_view entity_id, const std::vector<std::string>& allocation_ids);

  Rows& rows_;
  FoldedRules rules_;
  IdSequence ids_;
  Topic source_ = Topic::kPromotions;  // of the record being folded
};

/// The last event of each allocation, in folding order. Errors: those of the reader; kCorrupt.
Result<Json> allocations_json(const state::Reader& reader);
/// {"pool","unit","capacity","used","reserved","available","quotas":[{"divisionId","quota","used"}]} of each pool that is
/// configured or still in use, by name. Errors: those of the reader; kCorrupt.
Result<Json> pools_json(const state::Reader& reader);

}  // namespace assay::processors
