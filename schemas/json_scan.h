// A strict pull scanner over JSON text (RFC 8259): the one JSON grammar of the system, without a library or a tree.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace assay::schemas {

/// Walks one JSON document from left to right; every value must be read or skipped exactly once:
///   for (bool more = scan.begin_object(); more; more = scan.next_member()) { use(scan.name()); scan.skip(); }
/// The first fault stops it: every later call returns false or kFault, and fault() says what and where.
/// Views point into the text, or into the scanner when a string held escapes, and live until the next start().
class JsonScanner {
 public:
  enum class Kind : uint8_t { kObject, kArray, kString, kNumber, kTrue, kFalse, kNull, kFault };
  enum class Fault : uint8_t { kNone, kSyntax, kTooDeep };

  struct String {
    std::string_view bytes;       // unescaped
    bool valid_utf8 = true;       // false: the text itself holds bytes that are no UTF-8
    bool lone_surrogate = false;  // \ud800 without its half; `bytes` holds its three-byte form
    bool clean() const { return valid_utf8 && !lone_surrogate; }
  };

  /// Requires: `text` outlives the use of this scanner.
  void start(std::string_view text, int max_depth);

  /// Looks at the next value without reading it.
  Kind kind();

  bool begin_object();
  bool next_member();
  /// Name of the member whose value comes next.
  const String& name() const { return name_; }

  bool begin_array();
  bool next_element();

  bool read_string(String* out);
  /// Reads a number as the nearest double; ±infinity when it is too great for one.
  bool read_number(double* out);
  /// Reads true, false or null. Requires: kind() said so.
  bool read_literal();
  /// Reads any value, checking its grammar and that its strings are Unicode; with `any_text`, what is not is only noted.
  bool skip(bool any_text = false);
  /// Tells whether skip(any_text) passed over text that is not Unicode.
  bool passed_bad_text() const { return passed_bad_text_; }
  /// Tells whether the document ended and only whitespace followed.
  bool finish();

  /// Stops the scan for a reason that the grammar does not know, and returns false.
  bool refuse(const char* what) { return fail(what); }

  Fault fault() const { return fault_; }
  /// What was wrong, with the byte where.
  std::string fault_text() const;
  size_t position() const { return static_cast<size_t>(p_ - begin_); }
  /// Where the next value begins; whitespace before it is passed over.
  size_t value_position() {
    skip_space();
    return position();
  }

 private:
  bool fail(const char* what, Fault fault = Fault::kSyntax);
  void skip_space();
  bool read_name();
  bool passes(const String& text, bool any_text);

  const char* begin_ = nullptr;
  const char* p_ = nullptr;
  const char* end_ = nullptr;
  int depth_ = 0;
  int max_depth_ = 0;
  Fault fault_ = Fault::kNone;
  bool passed_bad_text_ = false;
  const char* what_ = "";
  const char* where_ = nullptr;
  String name_;
  std::vector<char> unescaped_;  // as large as the text, so that views into it never move
  size_t unescaped_used_ = 0;
};

}  // namespace assay::schemas
