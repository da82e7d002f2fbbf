// What /debug/state calls pending.
#include <gtest/gtest.h>

#include "schemas/json_parse.h"
#include "tools/debug_state.h"

namespace assay::tools {
namespace {

Json rows(const char* member, std::initializer_list<const char*> states) {
  Json out = Json::array();
  for (const char* state : states) out.push_back(Json::object().set("id", std::string("of ") + state).set(member, state));
  return out;
}

TEST(DebugState, ListsWhatWaitsForSomebody) {
  const Json told = debug_state(
      Json::object().set("status", "ready"), rows("status", {"pending", "applied", "pending_multisig", "approved", "rejected"}),
      rows("state", {"applied", "reserved", "released", "pending_finance", "rejected", "settled", "frozen"}));
  EXPECT_EQ(canonical(told),
            "{\"pending\":{\"allocations\":[{\"id\":\"of reserved\",\"state\":\"reserved\"},"
            "{\"id\":\"of pending_finance\",\"state\":\"pending_finance\"},{\"id\":\"of frozen\",\"state\":\"frozen\"}],"
            "\"missing\":[],"
            "\"promotions\":[{\"id\":\"of pending\",\"status\":\"pending\"},"
            "{\"id\":\"of pending_multisig\",\"status\":\"pending_multisig\"}]},\"status\":\"ready\"}");
}

TEST(DebugState, SaysTheRestWhenAPartCannotBeHad) {
  const Json told =
      debug_state(Json::object(), Error{Errc::kIncomplete, "partition 3 is nobody's"}, rows("state", {"reserved", "applied"}));
  EXPECT_EQ(canonical(told),
            "{\"pending\":{\"allocations\":[{\"id\":\"of reserved\",\"state\":\"reserved\"}],"
            "\"missing\":[\"promotions: partition 3 is nobody's\"],\"promotions\":null}}");
}

}  // namespace
}  // namespace assay::tools
