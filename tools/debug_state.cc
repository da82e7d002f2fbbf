#include "tools/debug_state.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

namespace assay::tools {
namespace {

using Words = std::span<const std::string_view>;

constexpr std::string_view kUndecided[] = {"pending", "pending_multisig"};
// Everything between a request and a grant, or on the way back from one.
constexpr std::string_view kUngranted[] = {"requested", "gated",           "pending_multisig", "reserved",   "pending_finance",
                                           "funded",    "infra_requested", "compensating",     "preempting", "frozen"};

}  // namespace

Json debug_state(Json ready, const Result<Json>& promotions, const Result<Json>& allocations) {
  Json pending = Json::object(), missing = Json::array();
  auto set = [&](std::string_view name, const Result<Json>& rows, std::string_view member, Words states) {
    if (!rows) {
      missing.push_back(std::string(name) + ": " + rows.error().message);
      pending.set(name, Json());
      return;
    }
    Json waiting = Json::array();
    for (const Json& row : rows->as_array())
      if (std::ranges::count(states, row.string_or(member, "")) > 0) waiting.push_back(row);
    pending.set(name, std::move(waiting));
  };
  set("promotions", promotions, "status", kUndecided);
  set("allocations", allocations, "state", kUngranted);
  pending.set("missing", std::move(missing));
  ready.set("pending", std::move(pending));
  return ready;
}

}  // namespace assay::tools
