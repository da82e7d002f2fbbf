// Runs a fuzz target over its corpus and over mutations of it that a seed decides.
//   fuzz_X CORPUS ROUNDS [SEED]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

/// What parsers trip over.
constexpr const char* kTokens[] = {"{",
                                   "}",
                                   "[",
                                   "]",
                                   "\"",
                                   "\\",
                                   "\\u0000",
                                   "\\ud800",
                                   "\\u00e9",
                                   "\xc3\xa9",
                                   "\xff",
                                   "\n",
                                   "\t",
                                   "\\N",
                                   "\\.",
                                   "null",
                                   "true",
                                   "-0",
                                   "1e400",
                                   "1e-7",
                                   "0.1",
                                   "\r",
                                   " ",
                                   ":",
                                   ",",
                                   "\n\n",
                                   "\xe2\x80\x94 ",
                                   "+",
                                   "9223372036854775808",
                                   "-1",
                                   "00",
                                   "=",
                                   "==",
                                   "//",
                                   "AAAA"};

class Mutator {
 public:
  Mutator(std::vector<std::string> corpus, uint64_t seed) : corpus_(std::move(corpus)), random_(seed) {}

  std::string next() {
    std::string text = corpus_[below(corpus_.size())];
    for (size_t changes = 1 + below(4); changes > 0; --changes) change(text);
    return text;
  }

 private:
  size_t below(size_t n) { return n == 0 ? 0 : random_() % n; }

  void change(std::string& text) {
    const size_t at = below(text.size() + 1), span = below(std::min<size_t>(text.size() - at, 64) + 1);
    switch (below(8)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      case 1:
        if (at < text.size()) text[at] = static_cast<char>(random_());
        break;
      case 2:
        text.insert(at, kTokens[below(std::size(kTokens))]);
        break;
      case 3:
        text.erase(at, span);
        break;
      case 4:
        text.insert(below(text.size() + 1), text.substr(at, span));
        break;
      case 5:
        text.replace(at, span, kTokens[below(std::size(kTokens))]);
        break;
      case 6: {
        const std::string& other = corpus_[below(corpus_.size())];
        const size_t from = below(other.size() + 1);
        text.replace(at, span, other.substr(from, below(256)));
        break;
      }
      default:
        text.resize(at);
    }
  }

  std::vector<std::string> corpus_;
  std::mt19937_64 random_;
};

void run(const std::string& text) { LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(text.data()), text.size()); }

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s CORPUS ROUNDS [SEED]\n", argv[0]);
    return 2;
  }
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::vector<std::string> corpus;
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    run(corpus.back());
  }
  if (corpus.empty()) {
    std::fprintf(stderr, "%s: there is nothing in %s\n", argv[0], argv[1]);
    return 1;
  }
  Mutator mutator(corpus, argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1);
  const long rounds = std::strtol(argv[2], nullptr, 10);
  for (long round = 0; round < rounds; ++round) run(mutator.next());
  std::printf("%zu files and %ld mutations of them\n", corpus.size(), rounds);
}
