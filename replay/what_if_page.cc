#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "replay/what_if.h"
#include "schemas/time.h"

namespace assay::replay {
namespace {

constexpr const char* kStyle = R"css(
:root{color-scheme:light dark;--ink:#1c1f24;--paper:#fff;--faint:#6b7280;--line:#d7dbe0;--a:#1d5fbf;--b:#b4470f}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#15181c;--faint:#9aa3ad;--line:#333a42;--a:#79b0ff;--b:#ff9f5f}}
body{background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}p.faint,.faint{color:var(--faint)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right}svg{width:100%;height:auto;display:block}
svg text{fill:var(--faint);font:11px system-ui,sans-serif}.axis{stroke:var(--line);fill:none}
.a{stroke:var(--a)}.b{stroke:var(--b)}path.a,path.b{fill:none;stroke-width:1.8}path.b{stroke-dasharray:5 3}
rect.a{fill:var(--a);stroke:none}rect.b{fill:var(--b);stroke:none}.limit{stroke-width:1;opacity:.55}
.key{display:inline-block;width:1.6em;border-top:3px solid;vertical-align:middle;margin:0 .3em 0 1em}
)css";

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  return out;
}

std::string text_of(const Json& value) { return value.is_null() ? "–" : value.is_string() ? value.as_string() : canonical(value); }

std::string fixed(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", x);
  return text;
}

/// A table: the first `words` columns are words, the others numbers.
std::string table(const std::vector<std::string>& heads, const std::vector<std::vector<std::string>>& rows, size_t words) {
  std::string out = "<table><tr>";
  for (size_t c = 0; c < heads.size(); ++c) out += std::string(c < words ? "<th>" : "<th class=n>") + escaped(heads[c]) + "</th>";
  out += "</tr>\n";
  for (const auto& row : rows) {
    out += "<tr>";
    for (size_t c = 0; c < row.size(); ++c) out += std::string(c < words ? "<td>" : "<td class=n>") + escaped(row[c]) + "</td>";
    out += "</tr>\n";
  }
  return out + "</table>\n";
}

constexpr double kWide = 960, kHigh = 240, kLeft = 44, kBottom = 24, kTop = 8;

struct Scale {
  double from = 0, to = 1, most = 1;
  double x(double t) const { return kLeft + (kWide - kLeft - 8) * (t - from) / std::max(1.0, to - from); }
  double y(double v) const { return kHigh - kBottom - (kHigh - kBottom - kTop) * v / std::max(1e-9, most); }
};

std::string axes(const Scale& scale, const std::string& first, const std::string& last) {
  std::string out =
      "<path class=axis d=\"M" + fixed(kLeft) + " " + fixed(kTop) + "V" + fixed(kHigh - kBottom) + "H" + fixed(kWide - 8) + "\"/>";
  for (int tick = 0; tick <= 4; ++tick) {
    const double v = scale.most * tick / 4;
    out += "<text x=\"" + fixed(kLeft - 6) + "\" y=\"" + fixed(scale.y(v) + 4) + "\" text-anchor=\"end\">" +
           (scale.most >= 8 ? std::to_string(std::llround(v)) : fixed(v)) + "</text>";
  }
  out += "<text x=\"" + fixed(kLeft) + "\" y=\"" + fixed(kHigh - 6) + "\">" + escaped(first) + "</text>";
  out += "<text x=\"" + fixed(kWide - 8) + "\" y=\"" + fixed(kHigh - 6) + "\" text-anchor=\"end\">" + escaped(last) + "</text>";
  return out;
}

std::string svg(const std::string& label, const std::string& content) {
  return "<svg viewBox=\"0 0 " + fixed(kWide) + " " + fixed(kHigh) + "\" role=\"img\" aria-label=\"" + escaped(label) + "\">" +
         content + "</svg>\n";
}

/// Steps [[ts, value]…] held until the end.
std::string steps(const Json& series, const Scale& scale, const char* style) {
  std::string path = "M" + fixed(scale.x(scale.from)) + " " + fixed(scale.y(0));
  for (const Json& step : series.as_array())
    path += "H" + fixed(scale.x(step.as_array()[0].as_number())) + "V" + fixed(scale.y(step.as_array()[1].as_number()));
  return std::string("<path class=") + style + " d=\"" + path + "H" + fixed(scale.x(scale.to)) + "\"/>";
}

void stretch(const Json& series, Scale& scale, bool& any) {
  for (const Json& step : series.as_array()) {
    const double ts = step.as_array()[0].as_number();
    scale.from = any ? std::min(scale.from, ts) : ts;
    any = true;
    scale.most = std::max(scale.most, step.as_array()[1].as_number());
  }
}

std::string day_of(double ts) { return format_rfc3339_ms(static_cast<int64_t>(ts)).substr(0, 10); }

std::string two_lines(const std::string& label, const Json& a, const Json& b, double end, const Json& a_limit,
                      const Json& b_limit) {
  Scale scale;
  bool any = false;
  stretch(a, scale, any);
  stretch(b, scale, any);
  if (!any) return "<p class=faint>None.</p>\n";
  scale.to = std::max(end, scale.from + 1);
  for (const Json* limit : {&a_limit, &b_limit})
    if (limit->is_number()) scale.most = std::max(scale.most, limit->as_number());
  std::string content = axes(scale, day_of(scale.from), day_of(scale.to));
  const std::pair<const Json*, const char*> limits[] = {{&a_limit, "a"}, {&b_limit, "b"}};
  for (const auto& [limit, style] : limits)
    if (limit->is_number())
      content += std::string("<path class=\"") + style + " limit\" d=\"M" + fixed(kLeft) + " " +
                 fixed(scale.y(limit->as_number())) + "H" + fixed(kWide - 8) + "\"/>";
  return svg(label, content + steps(a, scale, "a") + steps(b, scale, "b"));
}

std::string bars(const std::string& label, const Json& days) {
  if (days.as_array().empty()) return "<p class=faint>None.</p>\n";
  Scale scale;
  for (const Json& day : days.as_array())
    scale.most = std::max({scale.most, day.number_or("present", 0), day.number_or("other", 0)});
  scale.to = static_cast<double>(days.as_array().size());
  std::string content = axes(scale, std::string(days.as_array().front().string_or("day", "")),
                             std::string(days.as_array().back().string_or("day", "")));
  double at = 0;
  for (const Json& day : days.as_array()) {
    const double width = (scale.x(1) - scale.x(0)) * 0.4;
    for (const auto& [side, shift] : {std::pair("present", 0.1), std::pair("other", 0.5)}) {
      const double value = day.number_or(side, 0);
      content += std::string("<rect class=") + (shift < 0.3 ? "a" : "b") + " x=\"" + fixed(scale.x(at + shift)) + "\" y=\"" +
                 fixed(scale.y(value)) + "\" width=\"" + fixed(std::max(0.5, width)) + "\" height=\"" +
                 fixed(scale.y(0) - scale.y(value)) + "\"><title>" + escaped(day.string_or("day", "")) + " " + side + ": " +
                 canonical(Json(value)) + "</title></rect>";
    }
    at += 1;
  }
  return svg(label, content);
}

std::string counts_table(const Json& counts, const char* name, size_t most) {
  std::vector<std::pair<double, std::vector<std::string>>> rows;
  for (const auto& [key, kinds] : counts.as_object()) {
    double all = 0;
    std::string of;
    for (const auto& [kind, n] : kinds.as_object()) {
      all += n.as_number();
      of += (of.empty() ? "" : ", ") + canonical(n) + " " + kind;
    }
    rows.emplace_back(all, std::vector<std::string>{key, of, canonical(Json(all))});
  }
  std::ranges::stable_sort(rows, std::greater<>(), [](const auto& row) { return row.first; });
  std::vector<std::vector<std::string>> shown;
  for (const auto& [all, row] : rows)
    if (shown.size() < most) shown.push_back(row);
  std::string out = table({name, "of these kinds", "differences"}, shown, 2);
  if (rows.size() > shown.size()) out += "<p class=faint>and " + std::to_string(rows.size() - shown.size()) + " more</p>\n";
  return out;
}

}  // namespace

std::string what_if_page(const WhatIf& found) {
  const Json& d = found.document;
  const Json& s = found.series;
  std::string out =
      "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">"
      "<title>What if</title><style>" +
      std::string(kStyle) + "</style></head><body>\n<h1>What other rules would have decided</h1>\n";
  out += "<p><b>" + text_of(*d.find("differences")) + "</b> decisions differ over " + text_of(*d.find("reports")) + " reports.";
  for (const char* border : {"since", "until"})
    if (const Json* at = d.find(border)) out += std::string(" ") + border + " " + escaped(text_of(*at)) + ".";
  out += "<span class=\"key a\"></span>present rules<span class=\"key b\"></span>other rules</p>\n";

  std::vector<std::vector<std::string>> rows;
  for (const Json& change : d.find("rules")->find("changed")->as_array())
    rows.push_back({std::string(change.string_or("key", "")), text_of(*change.find("present")), text_of(*change.find("other"))});
  out +=
      "<h2>Rules that differ</h2>\n" + (rows.empty() ? "<p class=faint>None.</p>\n" : table({"key", "present", "other"}, rows, 3));

  rows.clear();
  for (const auto& [kind, counts] : d.find("totals")->as_object()) {
    std::vector<std::string> row = {kind};
    for (const char* member : {"present", "other", "onlyPresent", "onlyOther"}) row.push_back(text_of(*counts.find(member)));
    rows.push_back(std::move(row));
  }
  out += "<h2>Decisions</h2>\n" + table({"decided", "present", "other", "only present", "only other"}, rows, 1);
  out += "<h2>Decisions a day</h2>\n" + bars("decisions a day by either rules", *s.find("decisions"));
  const double end = s.number_or("end", 0);
  const Json* promoted = s.find("promoted");
  out += "<h2>Agents promoted</h2>\n" +
         two_lines("agents promoted over time", *promoted->find("present"), *promoted->find("other"), end, {}, {});
  for (const Json& pool : s.find("pools")->as_array()) {
    const Json *a = pool.find("present"), *b = pool.find("other");
    const std::string name(pool.string_or("pool", ""));
    out += "<h2>Pool " + escaped(name) + ", units in use</h2>\n" +
           two_lines("use of pool " + name, *a->find("use"), *b->find("use"), end, *a->find("capacity"), *b->find("capacity"));
  }

  rows.clear();
  for (const Json& pool : d.find("pools")->as_array())
    for (const char* side : {"present", "other"}) {
      const Json& use = *pool.find(side);
      std::vector<std::string> row = {std::string(pool.string_or("pool", "")), side, "all"};
      for (const char* member : {"capacity", "peakUsed", "unitHours", "waits", "waitHours"})
        row.push_back(text_of(*use.find(member)));
      rows.push_back(std::move(row));
      for (const auto& [division, part] : use.find("divisions")->as_object())
        rows.push_back({"", "", division, text_of(*part.find("quota")), text_of(*part.find("peakHeld")),
                        text_of(*part.find("unitHours")), "", ""});
    }
  out += "<h2>Pools and quotas</h2>\n" +
         table({"pool", "rules", "division", "capacity or quota", "peak", "unit hours", "waits", "wait hours"}, rows, 3);
  if (const Json* money = d.find("money"); money->is_object()) {
    rows = {{"all", text_of(*money->find("present")), text_of(*money->find("other")), text_of(*money->find("difference"))}};
    for (const auto& [division, sums] : money->find("byDivision")->as_object())
      rows.push_back({division, text_of(*sums.find("present")), text_of(*sums.find("other")), text_of(*sums.find("difference"))});
    out += "<h2>Money</h2>\n" + table({"division", "present", "other", "difference"}, rows, 1);
  }
  out += "<h2>By division</h2>\n" + counts_table(*d.find("byDivision"), "division", 50);
  out += "<h2>By entity</h2>\n" + counts_table(*d.find("byEntity"), "entity", 50);

  rows.clear();
  for (const Json& example : d.find("examples")->as_array())
    rows.push_back({std::string(example.string_or("ts", "")), std::string(example.string_or("entityId", "")),
                    std::string(example.string_or("kind", "")), std::string(example.string_or("only", "")),
                    std::string(example.string_or("cause", ""))});
  out += "<h2>Examples, and the cause</h2>\n" + table({"ts", "entity", "kind", "only by", "because"}, rows, 5);
  return out + "</body></html>\n";
}

}  // namespace assay::replay
