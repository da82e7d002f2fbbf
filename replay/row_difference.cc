#include "replay/row_difference.h"

#include <algorithm>

#include "processors/dedupe.h"
#include "processors/panes.h"
#include "replay/json_difference.h"
#include "schemas/time.h"
#include "state/encoding.h"

namespace assay::replay {
namespace {

using processors::Grain;

constexpr size_t kGroupSuffix = 1 + 8, kDedupeSuffix = 8 + 8;  // see agent_state.h for the rows

bool is_text(std::string_view bytes) {
  return std::ranges::all_of(bytes, [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; });
}

std::string whole(int64_t value) { return std::to_string(value); }

Json panes_json(std::string_view row) {
  processors::Names names;
  std::map<int64_t, processors::Pane> panes;
  if (!processors::decode_group(row, panes, names)) return Json("undecodable " + to_hex(row));
  Json out = Json::object();
  for (const auto& [start, pane] : panes) {
    Json metrics = Json::object();
    for (const processors::Cell& cell : pane.cells) {
      const processors::Moments& m = cell.moments;
      Json one =
          Json::object().set("count", whole(static_cast<int64_t>(m.count))).set("min", whole(m.min)).set("max", whole(m.max));
      const auto variance = m.variance();
      metrics.set(names.name(cell.metric), one.set("mean", m.mean()).set("variance", variance ? Json(*variance) : Json()));
    }
    out.set(format_rfc3339_ms(start), Json::object()
                                          .set("samples", whole(static_cast<int64_t>(pane.samples)))
                                          .set("last", pane.last_id)
                                          .set("division", pane.last_division)
                                          .set("metrics", std::move(metrics)));
  }
  return out;
}

Json ids_json(int64_t bucket, std::string_view row) {
  std::vector<processors::Dedupe::Entry> entries;
  if (!processors::Dedupe::decode(bucket, row, entries)) return Json("undecodable " + to_hex(row));
  std::ranges::sort(entries, {}, [](const auto& e) { return std::pair(e.timestamp, e.content_hash); });
  Json out = Json::array();
  for (const auto& entry : entries)
    out.push_back(format_rfc3339_ms(entry.timestamp) + " content " + std::to_string(entry.content_hash));
  return out;
}

Json header_json(std::string_view row) {
  state::Decoder in(row);
  const int64_t clock = in.i(), horizon = in.i();
  if (!in.ok() || !in.at_end()) return Json("undecodable " + to_hex(row));
  return Json::object().set("clock", whole(clock)).set("horizon", whole(horizon));
}

}  // namespace

std::string row_difference(std::string_view key, std::optional<std::string_view> rebuilt, std::optional<std::string_view> running) {
  std::string what = "key " + (is_text(key) ? std::string(key) + " (" + to_hex(key) + ")" : to_hex(key));
  std::function<Json(std::string_view)> read;
  const size_t nul = key.find('\0');
  if (key.starts_with('A') && is_text(key)) {
    what = "clock of agent " + std::string(key.substr(1)) + " (key " + to_hex(key) + ")";
    read = header_json;
  } else if (key.starts_with('P') && nul != std::string_view::npos && key.size() == nul + 1 + kGroupSuffix) {
    static constexpr const char* kNames[] = {"minutes", "quarters", "hours"};
    const auto grain = std::min<size_t>(2, static_cast<size_t>(key[nul + 1] - '0'));
    what = "panes of agent " + std::string(key.substr(1, nul - 1)) + ", " + kNames[grain] + " from " +
           format_rfc3339_ms(state::read_be64(key.substr(key.size() - 8))) + " (key " + to_hex(key) + ")";
    read = panes_json;
  } else if (key.starts_with('D') && nul != std::string_view::npos && key.size() == nul + 1 + kDedupeSuffix) {
    what = "remembered ids of agent " + std::string(key.substr(1, nul - 1)) + " (key " + to_hex(key) + ")";
    read = [bucket = state::read_be64(key.substr(key.size() - kDedupeSuffix))](std::string_view row) {
      return ids_json(bucket, row);
    };
  }
  if (!rebuilt || !running) return what + " is only in the " + (rebuilt ? "rebuilt" : "running") + " store";
  std::string difference;
  if (read) difference = json_difference(read(*rebuilt), "rebuilt", read(*running), "running");
  if (difference.empty() && !read) difference = text_difference(*rebuilt, "rebuilt", *running, "running");
  if (difference.empty()) difference = "its packing differs, what it says does not";
  return what + ": " + difference + "; values " + to_hex(*rebuilt).substr(0, 200) + " rebuilt and " +
         to_hex(*running).substr(0, 200) + " running";
}

}  // namespace assay::replay
