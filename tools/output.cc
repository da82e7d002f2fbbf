#include "tools/output.h"

#include <algorithm>

namespace assay::tools {
namespace {

struct Decoded {
  char32_t code = 0;
  size_t length = 0;  // 0: not UTF-8
};

Decoded decode(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const size_t length = lead >= 0xF0 && lead <= 0xF4 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 0;
  if (length == 0 || lead > 0xF4 || text.size() < length) return {};
  char32_t code = lead & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3F);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  if (overlong || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return {};
  return {code, length};
}

struct Range {
  char32_t first, last;
};
constexpr Range kCombining[] = {{0x300, 0x36F},   {0x483, 0x489},   {0x591, 0x5BD},   {0x610, 0x61A},   {0x64B, 0x65F},
                                {0x200B, 0x200F}, {0x202A, 0x202E}, {0x2060, 0x2064}, {0x20D0, 0x20F0}, {0x1AB0, 0x1AFF},
                                {0x1DC0, 0x1DFF}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}, {0xFEFF, 0xFEFF}};
constexpr Range kWide[] = {{0x1100, 0x115F}, {0x2E80, 0x303E},   {0x3041, 0x33FF},   {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},
                           {0xA000, 0xA4CF}, {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},
                           {0xFFE0, 0xFFE6}, {0x1F300, 0x1F64F}, {0x1F680, 0x1F6FF}, {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD}};

template <size_t N>
bool within(const Range (&ranges)[N], char32_t code) {
  return std::any_of(std::begin(ranges), std::end(ranges), [&](Range r) { return code >= r.first && code <= r.last; });
}

// A control character in an id must not drive the terminal.
bool drives_terminal(char32_t code) { return code < 0x20 || (code >= 0x7F && code < 0xA0) || (code >= 0x202A && code <= 0x202E); }

std::string escaped(std::string_view text, bool backslash) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  while (!text.empty()) {
    Decoded next = decode(text);
    const size_t length = std::max<size_t>(next.length, 1);
    if (next.length == 0 || drives_terminal(next.code)) {
      for (char c : text.substr(0, length)) {
        out += "\\x";
        out += kDigits[static_cast<unsigned char>(c) >> 4];
        out += kDigits[static_cast<unsigned char>(c) & 15];
      }
    } else {
      if (backslash && next.code == '\\') out += '\\';
      out += text.substr(0, length);
    }
    text.remove_prefix(length);
  }
  return out;
}

void append_ordered(const Json& document, std::string& out) {
  if (document.is_array()) {
    out += '[';
    for (size_t i = 0; i < document.as_array().size(); ++i) {
      if (i != 0) out += ',';
      append_ordered(document.as_array()[i], out);
    }
    out += ']';
  } else if (document.is_object()) {
    out += '{';
    for (size_t i = 0; i < document.as_object().size(); ++i) {
      if (i != 0) out += ',';
      append_string(document.as_object()[i].first, out);
      out += ':';
      append_ordered(document.as_object()[i].second, out);
    }
    out += '}';
  } else {
    append_canonical(document, out);
  }
}

std::string cell(const Json* value, std::string_view absent) {
  if (value == nullptr || value->is_null()) return std::string(absent);
  if (value->is_string()) return value->as_string();
  return ordered(*value);
}

bool is_decimal(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::vector<std::string> all_columns(std::span<const Json> rows) {
  std::vector<std::string> columns;
  for (const Json& row : rows)
    for (const auto& [name, value] : row.as_object())
      if (std::find(columns.begin(), columns.end(), name) == columns.end()) columns.push_back(name);
  return columns;
}

std::string render_csv(std::span<const Json> rows, const std::vector<std::string>& columns) {
  std::string out;
  auto field = [&](size_t i, const std::string& text) {
    if (i != 0) out += ',';
    if (text.find_first_of(",\"\r\n") == std::string::npos) {
      out += text;
      return;
    }
    out += '"';
    for (char c : text) {
      if (c == '"') out += '"';
      out += c;
    }
    out += '"';
  };
  for (size_t i = 0; i < columns.size(); ++i) field(i, columns[i]);
  out += "\r\n";
  for (const Json& row : rows) {
    for (size_t i = 0; i < columns.size(); ++i) field(i, cell(row.find(columns[i]), ""));
    out += "\r\n";
  }
  return out;
}

std::string render_table(std::span<const Json> rows, const std::vector<std::string>& columns) {
  const size_t n = columns.size();
  std::vector<size_t> widths(n);
  std::vector<bool> right(n, !rows.empty());
  std::vector<std::vector<std::string>> cells;
  for (size_t i = 0; i < n; ++i) widths[i] = display_width(columns[i]);
  for (const Json& row : rows) {
    std::vector<std::string>& line = cells.emplace_back(n);
    for (size_t i = 0; i < n; ++i) {
      const Json* value = row.find(columns[i]);
      line[i] = escaped(cell(value, "-"), false);
      widths[i] = std::max(widths[i], display_width(line[i]));
      const bool number =
          value == nullptr || value->is_null() || value->is_number() || (value->is_string() && is_decimal(value->as_string()));
      if (!number) right[i] = false;
    }
  }
  std::string out;
  auto print = [&](const std::vector<std::string>& line) {
    std::string text;
    for (size_t i = 0; i < n; ++i) {
      const std::string gap(widths[i] - display_width(line[i]), ' ');
      if (i != 0) text += "  ";
      text += right[i] ? gap + line[i] : line[i] + gap;
    }
    out += text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  };
  print(columns);
  for (const auto& line : cells) print(line);
  return out;
}

}  // namespace

std::string ordered(const Json& document) {
  std::string out;
  append_ordered(document, out);
  return out;
}

size_t display_width(std::string_view utf8) {
  size_t width = 0;
  while (!utf8.empty()) {
    const Decoded next = decode(utf8);
    if (next.length == 0)
      ++width;
    else if (!within(kCombining, next.code))
      width += within(kWide, next.code) ? 2 : 1;
    utf8.remove_prefix(std::max<size_t>(next.length, 1));
  }
  return width;
}

std::string printable(std::string_view bytes) { return escaped(bytes, true); }

std::string render_rows(std::span<const Json> rows, Format format, std::vector<std::string> columns) {
  if (format == Format::kJson) {
    std::string out = "[";
    for (size_t i = 0; i < rows.size(); ++i) {
      out += i == 0 ? "\n" : ",\n";
      append_ordered(rows[i], out);
    }
    out += rows.empty() ? "]\n" : "\n]\n";
    return out;
  }
  if (columns.empty()) columns = all_columns(rows);
  if (columns.empty()) return "";
  return format == Format::kCsv ? render_csv(rows, columns) : render_table(rows, columns);
}

std::string render_object(const Json& object, Format format) {
  if (format == Format::kJson) return ordered(object) + "\n";
  if (format == Format::kCsv) return render_rows(std::span(&object, 1), format);
  size_t widest = 0;
  for (const auto& [name, value] : object.as_object()) widest = std::max(widest, display_width(name));
  std::string out;
  for (const auto& [name, value] : object.as_object())
    out += name + std::string(widest - display_width(name) + 2, ' ') + escaped(cell(&value, "-"), false) + "\n";
  return out;
}

}  // namespace assay::tools
