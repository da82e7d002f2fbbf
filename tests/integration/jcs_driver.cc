// Lets scripts in other languages ask our canonicaliser and parser: one answer line for each input.
//   jcs_driver print      stdin: doubles, 8 bytes little endian   stdout: their canonical text
//   jcs_driver read       stdin: a JSON number a line             stdout: its bits as 16 hex digits
//   jcs_driver document   stdin: a JSON document a line           stdout: its canonical form, or "refused: " and why
#include <bit>
#include <cstring>
#include <iostream>
#include <iterator>

#include "schemas/json_parse.h"

int main(int argc, char** argv) {
  using namespace assay::schemas;
  const std::string_view mode = argc == 2 ? argv[1] : "";
  std::ios::sync_with_stdio(false);
  const std::string input(std::istreambuf_iterator<char>(std::cin), {});
  std::string out;
  if (mode == "print") {
    for (size_t at = 0; at + 8 <= input.size(); at += 8) {
      double value;
      std::memcpy(&value, input.data() + at, 8);
      append_number(value, out);
      out.push_back('\n');
    }
  } else if (mode == "read" || mode == "document") {
    for (size_t begin = 0, end; begin < input.size(); begin = end + 1) {
      end = std::min(input.find('\n', begin), input.size());
      const Result<Json> document = parse_json(std::string_view(input).substr(begin, end - begin));
      if (!document) {
        out += "refused: " + document.error().message;
      } else if (mode == "document") {
        append_canonical(*document, out);
      } else {
        char bits[17];
        std::snprintf(bits, sizeof bits, "%016llx",
                      static_cast<unsigned long long>(std::bit_cast<uint64_t>(document->as_number())));
        out += bits;
      }
      out.push_back('\n');
    }
  } else {
    std::cerr << "usage: jcs_driver print|read|document\n";
    return 2;
  }
  std::cout << out;
  return 0;
}
